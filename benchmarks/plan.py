"""What `benchmarks serve` measures on a model, the engine that this takes, and the table of what came out."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import floor, parity, random_model
from benchmarks.engines import OURS, VARIANTS
from benchmarks.report import table
from benchmarks.timing import Timing
from vllm_gptoss.model.config import ModelArgs
from vllm_gptoss.tiny.hf_config import Sizes

BESIDE_BYTES = 7_000_000_000
"""What an engine takes beside weights and KV cache: CUDA context, graphs, activations of the largest step."""
KV_SLACK = 1.03
BLOCK = 16
BLOCKS_BYTES = 256 << 20
"""For blocks that are not full."""
LATE_STEPS = 96
"""Decode steps beyond those timed: the batch fills, and settles."""


@dataclass(frozen=True)
class Shape:
    """One measurement: a decode step of `batch` requests behind `tokens` tokens, or a prompt of `tokens`."""

    kind: str
    batch: int
    tokens: int

    def __str__(self) -> str:
        return f"decode {self.batch} x {self.tokens}" if self.kind == "decode" else f"prefill {self.tokens}"

    @property
    def columns(self) -> dict[str, Any]:
        return {"kind": self.kind, "batch": self.batch, "tokens": self.tokens}

    @property
    def new_tokens(self) -> int:
        """Tokens computed in the time that is measured."""
        return self.batch if self.kind == "decode" else self.tokens

    def floor_ms(self, gpu: floor.Gpu, args: ModelArgs) -> float:
        if self.kind == "decode":
            return floor.decode_ms(gpu, args, self.batch, self.tokens)
        return floor.prefill_ms(gpu, args, self.tokens)


class Job:
    """The shapes for one model, and how an engine must be set up for them."""

    def __init__(self, sizes: Sizes, options: argparse.Namespace) -> None:
        self.sizes, self.args = sizes, random_model.args_of(sizes)
        self.graphs = options.graphs
        # Prompts of a large batch stay in the prefix cache, long prompts of prefill push them out: they come last.
        self.shapes = [Shape("decode", batch, options.context) for batch in sorted(options.batches)]
        self.shapes += [Shape("prefill", 1, tokens) for tokens in sorted(options.prefills)]
        self.batch = max([*options.batches, parity.QUESTION["prompts"]])
        late = options.steps + LATE_STEPS + self.batch // 2
        self.longest = max([options.context + late, *(tokens + 16 for tokens in options.prefills)])
        self._context, self._generated = options.context, options.steps + 2 * BLOCK
        in_graphs = [tokens for tokens in options.prefills if tokens <= max(self.graphs)]
        self._largest_graph = max([self.batch, *in_graphs])

    def kv_bytes(self) -> int:
        """The KV cache: the largest batch, or the longest prompt; sliding layers keep as much of them in the cache."""
        tokens = max(self.batch * (self._context + self._generated), self.longest)
        return int(tokens * self.args.num_layers * floor.kv_bytes_a_token(self.args) * KV_SLACK) + BLOCKS_BYTES

    def fits(self, engines: int, gpu_bytes: int | None) -> bool:
        """Whether so many engines stand in the memory of the GPU at once; None is a machine without one."""
        need = floor.weight_bytes(self.args) + self.kv_bytes() + BESIDE_BYTES
        return gpu_bytes is None or engines * need <= gpu_bytes

    def engine_options(self, folder: str, on_cpu: bool) -> dict[str, Any]:
        """Arguments of `vllm.LLM`; what is not named is vLLM's default."""
        options: dict[str, Any] = {
            "model": folder,
            "max_model_len": self.longest,
            "max_num_seqs": self.batch,
            "kv_cache_memory_bytes": self.kv_bytes(),
            # Checked against what is free at the start, which other engines are taking too; the KV cache has its size.
            "gpu_memory_utilization": 0.02,
        }
        if not on_cpu:
            sizes = [size for size in self.graphs if size <= self._largest_graph]
            options["compilation_config"] = {"cudagraph_capture_sizes": sizes or [1]}
        return options


def serve_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a shape: milliseconds of each variant, then how ours compares."""
    names = [name for name in VARIANTS if any(row["variant"] == name for row in rows)]
    shapes: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        shape = str(Shape(row["kind"], row["batch"], row["tokens"]))
        shapes.setdefault(shape, {})[row["variant"]] = row
    head = ["", *(f"{name} ms" for name in names), "floor ms", "stock/ours (min-max)", "tokens/s", "% of floor"]
    lines = []
    for shape, by_name in shapes.items():
        shown = by_name.get(OURS) or next(iter(by_name.values()))
        times = [str(Timing(r["ms"], r["ms_p20"], r["ms_p80"], ())) if (r := by_name.get(n)) else None for n in names]
        ratio = shown["ratio"] and f"{shown['ratio']:.3f} ({shown['ratio_min']:.3f}-{shown['ratio_max']:.3f})"
        lines.append([shape, *times, shown["floor_ms"], ratio, shown["tokens/s"], shown["floor_%"]])
    return table(head, lines)
