"""How far two engines with the same weights are apart, from the most likely tokens of each position.

A position's distributions are compared over the tokens that both engines list and one more event, all other tokens:
the Kullback-Leibler divergence of these coarser distributions, which is at most that of the whole ones. Positions
after the prompt count as long as both engines have generated the same tokens before them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LIMIT = 0.08
"""Mean divergence that two correct bf16 implementations stay below and no known mistake does (docs/log.md)."""
STOCK_FACTOR = 2.0
"""Ours may be this much further from vLLM's default backend than vLLM's other backend is."""
LEAST = 1e-9
"""Of the probability of an event: 1 minus a sum of probabilities rounds to 0 or below."""

QUESTION = {"prompts": 16, "length": 64, "tokens": 16}


class ParityError(RuntimeError):
    """Engines compute different things: their speeds can't be compared."""


def divergence(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> float:
    """Mean divergence of the second from the first, over all positions with the same tokens before them."""
    values = [_coarse_kl(p, q) for one, other in zip(first, second, strict=True) for p, q in _pairs(one, other)]
    return math.fsum(values) / len(values)


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[dict, dict]]:
    generated = len(one["tokens"])
    same = next((i for i in range(generated) if one["tokens"][i] != other["tokens"][i]), generated)
    # The first token that differs was still drawn after the same text.
    end = len(one["rows"]) - generated + min(same + 1, generated)
    return zip(one["rows"][:end], other["rows"][:end], strict=True)


def _coarse_kl(p: Mapping[str, float], q: Mapping[str, float]) -> float:
    both = p.keys() & q.keys()
    rest_p, rest_q = (max(LEAST, 1 - math.fsum(math.exp(row[token]) for token in both)) for row in (p, q))
    listed = math.fsum(math.exp(p[token]) * (p[token] - q[token]) for token in both)
    return listed + rest_p * math.log(rest_p / rest_q)


def check(answers: Mapping[str, Sequence[Mapping[str, Any]]], reference: str, ours: str, limit: float = LIMIT) -> str:
    """One line that says how far each engine is from `reference`.

    With another engine beside the two, `ours` may be STOCK_FACTOR times as far off as that one, else `limit`.

    Raises: ParityError when `ours` is further off, or when it isn't a number.
    """
    if answers.keys() <= {reference}:
        return "parity: nothing to compare with yet"
    apart = {name: divergence(answers[reference], answer) for name, answer in answers.items() if name != reference}
    others = [value for name, value in apart.items() if name != ours]
    allowed = STOCK_FACTOR * max(others) if others else limit
    line = "parity: mean KL " + ", ".join(f"{name} from {reference} {value:.5f}" for name, value in apart.items())
    if ours in apart and not apart[ours] <= allowed:
        raise ParityError(f"{line}; {ours} may be {allowed:.5f} off: no speed is reported")
    return line
