"""Makes a model say what a request scripts: a logits processor of vLLM, for servers that tests start.

Turn n of a response says `vllm_xargs["script"][n]`, Harmony with its control tokens; which turn it is stands in the
prompt, where each call behind the last question ends in `<|call|>`. So all else is as it is with any model.
"""

import itertools

import torch
from openai_harmony import HarmonyEncodingName, load_harmony_encoding
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

START, CALL, RETURN = 200006, 200012, 200002


class Scripted(AdapterLogitsProcessor):
    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params):
        turns = (params.extra_args or {}).get("script")
        if not turns:
            return None
        (user,) = self.encoding.encode("user")
        turns = [self.encoding.encode(turn, allowed_special="all") for turn in turns]

        def say(prompt: list[int], said: list[int], logits: torch.Tensor) -> torch.Tensor:
            asked = max(n for n, pair in enumerate(itertools.pairwise(prompt)) if pair == (START, user))
            turn = turns[min(prompt[asked:].count(CALL), len(turns) - 1)]
            wanted = turn[len(said)] if len(said) < len(turn) else RETURN
            logits.fill_(-torch.inf)
            logits[wanted] = 0
            return logits

        return say
