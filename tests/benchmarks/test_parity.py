"""The gate before every speed."""

import math

import pytest

from benchmarks import parity


def answer(*rows: dict[str, float], tokens: tuple[int, ...] = ()) -> dict:
    logs = [{token: math.log(value) for token, value in row.items()} for row in rows]
    return {"tokens": list(tokens), "rows": logs}


def test_divergence_is_that_of_the_listed_tokens_and_the_rest():
    one = answer({"1": 0.5, "2": 0.3})
    other = answer({"1": 0.25, "3": 0.5})
    expected = 0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)
    assert parity.divergence([one], [other]) == pytest.approx(expected)
    assert parity.divergence([one], [one]) == 0


def test_positions_behind_different_tokens_do_not_count():
    same, far = {"1": 0.9}, {"1": 0.01}
    one = answer(same, same, same, same, tokens=(5, 6, 7))
    other = answer(same, same, same, far, tokens=(5, 8, 7))
    assert parity.divergence([one], [other]) == 0
    assert parity.divergence([one], [answer(same, same, far, far, tokens=(5, 8, 7))]) > 0.1


def test_ours_may_be_twice_as_far_off_as_stock_is_from_itself():
    stock, close, far = answer({"1": 0.5}), answer({"1": 0.45}), answer({"1": 0.3})
    assert "plugin from stock" in parity.check(
        {"stock": [stock], "marlin": [close], "plugin": [close]}, "stock", "plugin"
    )
    with pytest.raises(parity.ParityError, match="no speed"):
        parity.check({"stock": [stock], "marlin": [close], "plugin": [far]}, "stock", "plugin")


@pytest.mark.parametrize("value", [0.1, math.nan])
def test_without_a_second_stock_engine_the_limit_counts(value):
    answers = {"stock": [answer({"1": 0.5})], "plugin": [answer({"1": value})]}
    with pytest.raises(parity.ParityError):
        parity.check(answers, "stock", "plugin")
    assert parity.check({"plugin": answers["plugin"]}, "plugin", "plugin") == "parity: nothing to compare with yet"
