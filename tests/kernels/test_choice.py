"""The choice of experts by logits in memory, against sorted rows, compiled on a GPU and interpreted on a CPU."""

import pytest
import torch

from vllm_gptoss.kernels.choice import Choice, choice_ref, choose

SHAPES = {
    # name: M, E, K, rows
    "one": (1, 4, 2, 1),
    "odd": (5, 7, 3, 8),
    "20b": (70, 32, 4, 128),
    "120b": (33, 128, 4, 64),
    "two words": (17, 40, 4, 17),
    "all padding": (0, 32, 4, 64),
    "empty": (0, 32, 4, 0),
}


def logits_of(shape, device: str) -> torch.Tensor:
    """Often equal."""
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randn(shape[:2], generator=generator)).round(decimals=1).bfloat16().to(device)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """`torch.empty` holds what no kernel writes."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: empty(*args, **kwargs).fill_(77))


def assert_same(found: Choice, expected: Choice) -> None:
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert torch.equal(one, other)
    assert found.weights.dtype == expected.weights.dtype
    # The interpreter cuts off where a GPU rounds.
    torch.testing.assert_close(found.weights, expected.weights, rtol=2**-7, atol=0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_choose(shape, device):
    logits = logits_of(shape, device)
    assert_same(choose(logits, *shape[2:]), choice_ref(logits, *shape[2:]))


def test_the_specification_says_who_chose_whom(device):
    logits = torch.zeros(2, 40, device=device)
    logits[0, [39, 2]], logits[1, [31, 32]] = torch.tensor([2.0, 1.0], device=device), 3.0
    choice = choice_ref(logits, 2, 3)
    assert choice.ids.tolist() == [[39, 2], [31, 32], [-1, -1]]
    assert choice.words.tolist() == [[4, 128], [-(2**31), 1], [0, 0]]
    assert choice.weights[:, 0].tolist() == [pytest.approx(0.7311, rel=2**-8), 0.5, -1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x.float(), 4, 64), "float32"),
        (lambda x: (x[:, :8], 4, 64), "strides"),
        (lambda x: (x, 33, 64), "33 of 32 experts"),
        (lambda x: (x.repeat(1, 5), 4, 64), "160 experts"),
        (lambda x: (x, 4, 16), "17 tokens in 16 rows"),
    ],
)
def test_refuses(change, message, device):
    with pytest.raises(ValueError, match=message):
        choose(*change(logits_of((17, 32), device)))
