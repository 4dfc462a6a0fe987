"""Generate without a server: harmony renders the prompt to tokens and parses the tokens that come back.

    python examples/offline_prefill.py                      # the tiny checkpoint, on any machine
    python examples/offline_prefill.py openai/gpt-oss-20b   # a model's name, or its folder

Prints one JSON object a line for each message of the model: first its reasoning, then its answer.
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# vLLM logs to stdout unless told otherwise before it is imported; here stdout is for the messages.
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")

from openai_harmony import (
    Conversation,
    DeveloperContent,
    HarmonyEncoding,
    HarmonyEncodingName,
    HarmonyError,
    Message,
    Role,
    StreamableParser,
    SystemContent,
    load_harmony_encoding,
)
from vllm import LLM, SamplingParams

from vllm_gptoss.tiny import write_tiny


def main() -> None:
    if len(sys.argv) > 1:
        generate(sys.argv[1])
        return
    with tempfile.TemporaryDirectory(prefix="tiny-gpt-oss-") as folder:
        write_tiny(Path(folder))
        generate(folder)


def generate(model: str) -> None:
    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    conversation = Conversation.from_messages(
        [
            Message.from_role_and_content(Role.SYSTEM, SystemContent.new()),
            Message.from_role_and_content(
                Role.DEVELOPER, DeveloperContent.new().with_instructions("Always respond in riddles")
            ),
            Message.from_role_and_content(Role.USER, "What is the weather like in SF?"),
        ]
    )
    prompt = encoding.render_conversation_for_completion(conversation, Role.ASSISTANT)

    llm = LLM(model=model, max_model_len=4096, max_num_seqs=1)
    sampling = SamplingParams(
        temperature=0, max_tokens=1024, stop_token_ids=encoding.stop_tokens_for_assistant_actions()
    )
    (output,) = llm.generate({"prompt_token_ids": prompt}, sampling)

    for message in parse(encoding, output.outputs[0].token_ids):
        print(json.dumps(message.to_dict(), ensure_ascii=False))


def parse(encoding: HarmonyEncoding, tokens: Sequence[int]) -> list[Message]:
    """The messages in what was generated, with or without the token that stopped it.

    Of a message cut off in its text there is the text so far, of one cut off in its header nothing. Behind
    tokens that are no harmony at all nothing is read; the reason goes to stderr.
    """
    parser = StreamableParser(encoding, Role.ASSISTANT)
    try:
        for token in tokens:
            parser.process(token)
        parser.process_eos()
    except HarmonyError as error:
        print(f"parsed {len(parser.tokens)} of {len(tokens)} tokens: {error}", file=sys.stderr)
    return parser.messages


if __name__ == "__main__":
    main()
