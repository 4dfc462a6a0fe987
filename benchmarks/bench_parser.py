"""Parsing of streamed output: microseconds of CPU a token, this package's parser beside vLLM's.

One token a call of `parse_delta`, as a server streams: an answer behind reasoning of several lengths, then a hundred
streams that take turns. Both parsers run in turn in one process; shown are the median and the 20th and 80th
percentile of the rounds, and vLLM's time over ours.
"""

import argparse
import functools
import gc
import statistics
import time
from collections.abc import Callable

from openai_harmony import HarmonyEncoding, HarmonyEncodingName, load_harmony_encoding

LENGTHS = (100, 8_000, 30_000)
STREAMS, STREAM_LENGTH = 100, 100
ANSWER = 500
"""Tokens that are timed: a cost that grows with what came before shows there in full."""
LIMIT = 5.0
"""Microseconds a token, at most."""

TEXT = "First I look at what the user asks, then I answer: 3 x 14 = 42, as é and 日本 show. "


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=15)


def run(options: argparse.Namespace) -> None:
    parsers = {"ours": _our_parser(), "stock": _stock_parser()}
    print(f"{'':24}{'ours us/token':>22}{'stock us/token':>24}{'stock/ours':>12}")
    medians = []
    for length in LENGTHS:
        name = f"behind {length} tokens"
        medians.append(_row(name, parsers, lambda make, n=length: _answer_behind(make, n), options.rounds))
    one = _row("1 stream", parsers, lambda make: _streams(make, 1), options.rounds)
    many = _row(f"{STREAMS} streams in turn", parsers, lambda make: _streams(make, STREAMS), options.rounds)
    print(f"\nlongest over shortest {medians[-1] / medians[0]:.2f}, {STREAMS} streams over one {many / one:.2f}")
    if max(medians) > LIMIT:
        raise SystemExit(f"over the limit of {LIMIT} us a token")


def _row(name: str, parsers: dict[str, Callable], measure: Callable[[Callable], float], rounds: int) -> float:
    """Prints one row; returns our median."""
    times: dict[str, list[float]] = {kind: [] for kind in parsers}
    for _ in range(rounds):
        for kind, make in parsers.items():
            times[kind].append(measure(make))
    cells = []
    for series in times.values():
        deciles = statistics.quantiles(series, n=10)
        cells.append(f"{statistics.median(series):8.2f} ({deciles[1]:.2f}-{deciles[7]:.2f})")
    ours, stock = (statistics.median(series) for series in times.values())
    print(f"{name:24}{cells[0]:>22}{cells[1]:>24}{stock / ours:12.2f}", flush=True)
    return ours


def _answer_behind(make: Callable, length: int) -> float:
    """Microseconds a token of an answer behind reasoning of `length` tokens."""
    step = make()
    step(_message("analysis", length) + _encode("<|end|><|start|>assistant"))
    tokens = _message("final", ANSWER)
    gc.collect()  # what the reasoning left behind is not the answer's
    start = time.process_time()
    for token in tokens:
        step([token])
    return (time.process_time() - start) / len(tokens) * 1e6


def _streams(make: Callable, count: int) -> float:
    """Microseconds a token when `count` streams take turns."""
    steps = [make() for _ in range(count)]
    tokens = _message("analysis", STREAM_LENGTH)
    start = time.process_time()
    for token in tokens:
        for step in steps:
            step([token])
    return (time.process_time() - start) / len(tokens) / count * 1e6


def _message(channel: str, length: int) -> list[int]:
    """A message of that channel, its body `length` tokens long and not ended."""
    text = _encode(TEXT)
    return _encode(f"<|channel|>{channel}<|message|>") + (text * (length // len(text) + 1))[:length]


@functools.cache
def _encoding() -> HarmonyEncoding:
    return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)


def _encode(text: str) -> list[int]:
    return _encoding().encode(text, allowed_special="all")


class _NoTokenizer:
    """Neither parser asks for more than the vocabulary, and that at the start alone."""

    def get_vocab(self) -> dict[str, int]:
        return {}


def _step_of(parser_cls: type) -> Callable[[], Callable[[list[int]], object]]:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    request = ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "?"}])

    def make() -> Callable[[list[int]], object]:
        parser = parser_cls(_NoTokenizer(), None)
        return lambda tokens: parser.parse_delta("", tokens, request, [], finished=False)

    return make


def _our_parser() -> Callable:
    from vllm.tool_parsers.tool_strict_level import ToolStrictLevel

    from vllm_gptoss.parsers.serving import harmony_parser

    return _step_of(harmony_parser(None, None, ToolStrictLevel.AUTO))


def _stock_parser() -> Callable:
    from vllm.parser.harmony import HarmonyParser
    from vllm.reasoning.gptoss_reasoning_parser import GptOssReasoningParser
    from vllm.tool_parsers.gptoss_tool_parser import GptOssToolParser

    class Stock(HarmonyParser):
        reasoning_parser_cls, tool_parser_cls = GptOssReasoningParser, GptOssToolParser

    return _step_of(Stock)
