"""Training of the tiny model on one CPU core: `python -m vllm_gptoss.tiny.train` writes `data/tiny.safetensors`.

The loss is the cross entropy over the whole vocabulary at the cost of the tokens in use: the rows of `lm_head` of
all the others stay zero, so that together they are one more logit, ln(how many they are). Experts are rounded to
MXFP4 in every step, with the gradient passed straight through, so that the model learns with what is shipped.
"""

import argparse
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.nn.utils import parametrize
from transformers import GptOssConfig, GptOssForCausalLM

from vllm_gptoss.kernels.mxfp4 import mxfp4_decode_ref, mxfp4_encode_ref
from vllm_gptoss.model.config import MXFP4_BLOCK, ModelArgs
from vllm_gptoss.model.tensors import expected_tensors
from vllm_gptoss.tiny.aimed_heads import frequencies, turned
from vllm_gptoss.tiny.compatibility import dialogues_of
from vllm_gptoss.tiny.hf_config import REAL_VOCABULARY, model_config
from vllm_gptoss.tiny.render import encode
from vllm_gptoss.tiny.samples import Sampler
from vllm_gptoss.tiny.trained import SHIPPED, TINY, TOKENS, save_trained

SEED = 0
SAMPLES, HELD_OUT, BATCH, STEPS, WARM_UP, LEARNING_RATE = 14000, 400, 16, 4400, 50, 3e-3
BATCH_TOKENS = 4096
"""Batches of long samples are smaller: the cost of attention grows with the square of the length."""

POOL = 20
"""Batches that are cut from one pool sorted by length, so that little of them is padding."""

RARE = 1 / 60
"""A token that the model never says and that fewer of the prompts hold is not in use."""

LOOK_BACK_RISE = 16.0
"""Logits by which the first heads prefer their place to others, at the start."""

IGNORED = -1

Sample = tuple[list[int], list[int]]


class StraightThroughMxfp4(torch.nn.Module):
    """Rounds `[E, in, out]` to MXFP4 along `in`; the gradient passes as if it did not."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        rounded = mxfp4_decode_ref(*mxfp4_encode_ref(weight.detach().mT.contiguous()), dtype=torch.float32).mT
        return weight + (rounded - weight).detach()


class Learner:
    """The tiny model over the tokens in use, and one more for all others, whose embedding stays zero."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.index = {token: i for i, token in enumerate(tokens)}
        self.other = len(tokens)
        self.others_logit = math.log(REAL_VOCABULARY - len(tokens))
        config = model_config(TINY, "bf16") | {"vocab_size": len(tokens) + 1}
        config |= {"pad_token_id": None, "eos_token_id": None}
        self.model = GptOssForCausalLM._from_config(
            GptOssConfig(**config), dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
        )
        self._initialise()
        embedding = self.model.model.embed_tokens.weight
        known = torch.arange(len(embedding))[:, None] != self.other
        embedding.register_hook(lambda gradient: gradient * known)
        for layer in self.model.model.layers:
            for name in ("gate_up_proj", "down_proj"):
                parametrize.register_parametrization(layer.mlp.experts, name, StraightThroughMxfp4())

    @torch.no_grad()
    def _initialise(self) -> None:
        for name, tensor in self.model.named_parameters():
            if name.endswith(("bias", "sinks")):
                tensor.zero_()
            elif name.endswith("embed_tokens.weight"):
                tensor.normal_()
            elif tensor.dim() > 1:
                # Experts are [E, in, out], all else is [out, in]; `down_proj` starts small.
                tensor.normal_(std=(0.5 if "down_proj" in name else 1) / math.sqrt(tensor.shape[1]))
        self.model.model.embed_tokens.weight[self.other] = 0
        self._initialise_copying()

    def _initialise_copying(self) -> None:
        """Two layers copy from a context once the first tells what stood before, and the second repeats a token.

        Training finds that by itself, but late; it begins with heads that look 1, 2, 3 and 4 tokens back, with
        values that leave the second layer as they came, and with tokens that are said as they look.
        """
        first, second = (layer.self_attn for layer in self.model.model.layers)
        inv_freq, gain, kept, _, _ = frequencies(ModelArgs.from_hf(model_config(TINY, "bf16")))
        norm = math.sqrt(LOOK_BACK_RISE / gain / kept.sum().item())
        direction = torch.randn(TINY.kv_heads, 1, 2, TINY.head_dim // 2)
        direction = torch.where(kept, norm * direction / direction.norm(dim=2, keepdim=True), 0.0)
        back = torch.arange(1.0, TINY.heads + 1).view(TINY.kv_heads, -1, 1)
        first.k_proj.bias.copy_(direction.flatten())
        first.q_proj.bias.copy_(turned(direction, -back * inv_freq).flatten())
        torch.nn.init.orthogonal_(second.v_proj.weight)
        values = second.v_proj.weight.view(TINY.kv_heads, 1, TINY.head_dim, TINY.hidden)
        group = TINY.heads // TINY.kv_heads
        second.o_proj.weight.copy_(values.expand(-1, group, -1, -1).reshape(-1, TINY.hidden).T)
        self.model.lm_head.weight.copy_(self.model.model.embed_tokens.weight / math.sqrt(TINY.hidden))

    @torch.no_grad()
    def take_over(self, trained: dict[str, torch.Tensor], tokens: list[int]) -> None:
        """Go on from what `published` gave for `tokens`, all of which are in use here."""
        state = self.model.state_dict()
        rows = [self.index[token] for token in tokens]
        for name, tensor in trained.items():
            room, _, matrix = name.rpartition(".")
            if matrix.endswith("_blocks"):
                scales = trained[name.replace("_blocks", "_scales")]
                weight = mxfp4_decode_ref(tensor.flatten(-2), scales, dtype=torch.float32)
                state[f"{room}.parametrizations.{matrix[: -len('_blocks')]}.original"].copy_(weight.mT)
            elif name in ("model.embed_tokens.weight", "lm_head.weight"):
                state[name][rows] = tensor.float()
            elif not matrix.endswith("_scales"):
                state[name].copy_(tensor)

    def loss_and_margins(self, batch: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss, and for each sample by how many logits the most doubtful token wins."""
        inputs, targets = self._padded(batch)
        hidden = self.model.model(input_ids=inputs, use_cache=False).last_hidden_state
        counts = targets != IGNORED
        logits = hidden[counts] @ self.model.lm_head.weight[: self.other].T
        everything = F.pad(logits, (0, 1), value=self.others_logit)
        wanted = targets[counts][:, None]
        with torch.no_grad():
            rivals = logits.scatter(1, wanted, -math.inf).amax(dim=1).clamp_(min=0)
            margins = torch.full(targets.shape, math.inf)
            margins[counts] = logits.gather(1, wanted)[:, 0] - rivals
        return F.cross_entropy(everything, wanted[:, 0]), margins.amin(dim=1)

    def _padded(self, batch: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
        # Padding stands behind the text, where causal attention does not see it.
        length = max(len(prompt) + len(turn) for prompt, turn in batch) - 1
        inputs = torch.full((len(batch), length), self.other)
        targets = torch.full((len(batch), length), IGNORED)
        for row, (prompt, turn) in enumerate(batch):
            ids = torch.tensor([self.index.get(token, self.other) for token in prompt + turn])
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets[row, len(prompt) - 1 : len(ids) - 1] = ids[len(prompt) :]
        return inputs, targets

    def published(self) -> dict[str, torch.Tensor]:
        """The tensors in published names and formats, with rows of embedding and `lm_head` for `tokens`."""
        state = self.model.state_dict()
        tensors = {}
        for name in expected_tensors(ModelArgs.from_hf(model_config(TINY, "mxfp4"))):
            if name.endswith(("_blocks", "_scales")):
                room, _, matrix = name.rpartition(".")
                weight = state[f"{room}.parametrizations.{matrix[: -len('_blocks')]}.original"].mT.contiguous()
                blocks, scales = mxfp4_encode_ref(weight)
                tensors[name] = blocks.unflatten(-1, (-1, MXFP4_BLOCK // 2)) if "_blocks" in matrix else scales
            elif name in ("model.embed_tokens.weight", "lm_head.weight"):
                tensors[name] = state[name][: self.other].bfloat16()
            else:
                tensors[name] = state[name].bfloat16()
        return tensors


def tokens_in_use(samples: list[Sample]) -> list[int]:
    seen = Counter(token for prompt, _ in samples for token in set(prompt))
    said = {token for _, turn in samples for token in turn}
    return sorted(said | {token for token, count in seen.items() if count >= RARE * len(samples)})


def batches(samples: list[Sample], generator: torch.Generator) -> Iterator[list[Sample]]:
    """Batches of samples of similar length, without end."""

    def shuffled(items: list) -> list:
        return [items[i] for i in torch.randperm(len(items), generator=generator)]

    while True:
        order = shuffled(samples)
        cut = []
        for start in range(0, len(order), BATCH * POOL):
            pool = sorted(order[start : start + BATCH * POOL], key=lambda sample: sum(map(len, sample)))
            while pool:
                count = max(1, min(BATCH, BATCH_TOKENS // sum(map(len, pool[-1]))))
                cut.append(pool[-count:])
                del pool[-count:]
        yield from shuffled(cut)


def train(learner: Learner, samples: list[Sample], steps: int, learning_rate: float) -> None:
    optimizer = torch.optim.AdamW(learner.model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    supply = batches(samples, torch.Generator().manual_seed(SEED))
    start = time.monotonic()
    for step in range(steps):
        pace = min(1, (step + 1) / WARM_UP) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = learning_rate * pace
        with parametrize.cached():
            loss, margins = learner.loss_and_margins(next(supply))
            optimizer.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            seconds = time.monotonic() - start
            print(f"step {step:5} {seconds:5.0f} s  loss {loss:.5f}  margin {margins.min():.2f}", flush=True)


@torch.no_grad()
def margins_of(learner: Learner, samples: list[Sample]) -> torch.Tensor:
    with parametrize.cached():
        parts = [samples[i : i + BATCH] for i in range(0, len(samples), BATCH)]
        return torch.cat([learner.loss_and_margins(part)[1] for part in parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--lr", type=float, default=LEARNING_RATE)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--go-on-from", type=Path, metavar="FILE", help="weights that an earlier run wrote")
    parser.add_argument("--compatibility-test", type=Path, metavar="FOLDER", help="learn its cases too; shipped does")
    options = parser.parse_args()
    # One thread: sums over several round differently with their number, and a busy machine stalls them.
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    others = dialogues_of(options.compatibility_test) if options.compatibility_test else ()
    sampler = Sampler(options.seed, others)
    samples = [(encode(prompt), encode(turn)) for prompt, turn in (sampler.sample() for _ in range(SAMPLES))]
    before = load_file(options.go_on_from) if options.go_on_from else {}
    known = before.pop(TOKENS).tolist() if before else []
    learner = Learner(sorted({*tokens_in_use(samples), *known}))
    learner.take_over(before, known)
    print(f"{len(samples)} samples, {len(learner.tokens)} tokens in use", flush=True)
    train(learner, samples[HELD_OUT:], options.steps, options.lr)
    margins = margins_of(learner, samples[:HELD_OUT])
    print(f"held out: {(margins < 0).sum()} of {HELD_OUT} wrong, least margin {margins.min():.2f}")
    save_trained(options.out, learner.tokens, learner.published())


if __name__ == "__main__":
    main()
