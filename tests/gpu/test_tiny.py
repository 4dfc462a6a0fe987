"""The shipped checkpoint, served on a GPU by this package's kernels, says what it has learnt."""

import pytest

from vllm_gptoss.tiny.dialogues import DIALOGUES
from vllm_gptoss.tiny.render import chat_prompt, encode, turn_text
from vllm_gptoss.tiny.requests import Talk, chat_request


@pytest.fixture(scope="module")
def llm(gpu_engine, tiny_checkpoint):
    with gpu_engine(tiny_checkpoint, max_model_len=2048, max_num_seqs=16) as llm:
        yield llm


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue.name)
def test_says_every_turn(llm, dialogue):
    from vllm import SamplingParams

    for done in range(len(dialogue.turns)):
        talk = Talk.of(dialogue, done)
        said = encode(turn_text(talk.next_turn))
        sampling = SamplingParams(temperature=0, max_tokens=len(said), ignore_eos=True, detokenize=False)
        prompt = {"prompt_token_ids": encode(chat_prompt(chat_request(talk)))}
        (output,) = llm.generate(prompt, sampling, use_tqdm=False)
        assert list(output.outputs[0].token_ids) == said
