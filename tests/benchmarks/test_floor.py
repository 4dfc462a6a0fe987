"""The floor as performance notes state it for a decode step behind 1024 tokens on an H200."""

import pytest

from benchmarks import floor, random_model

STATED_MS = {
    "20b": {1: 0.87, 8: 2.18, 32: 3.14, 128: 3.90, 512: 8.55},
    "120b": {1: 1.18, 8: 3.99, 32: 10.1, 128: 16.1, 512: 22.0},
}
H200 = floor.gpu_of("NVIDIA H200")


@pytest.mark.parametrize(
    ("shape", "batch", "ms"), [(s, b, ms) for s, column in STATED_MS.items() for b, ms in column.items()]
)
def test_decode_floor(shape, batch, ms):
    args = random_model.args_of(random_model.sizes_of(shape))
    assert floor.decode_ms(H200, args, batch, context=1024) == pytest.approx(ms, rel=0.025)


def test_prefill_floor_grows_with_the_square_in_full_layers_alone():
    args = random_model.args_of(random_model.sizes_of("20b"))
    short, long = (floor.prefill_ms(H200, args, tokens) for tokens in (8192, 32768))
    assert 70 < short < 85
    assert 4 * short < long < 16 * short


def test_published_sizes():
    gib = [floor.weight_bytes(random_model.args_of(random_model.sizes_of(shape))) / 2**30 for shape in ("20b", "120b")]
    assert gib == pytest.approx([12.82, 60.77], rel=0.002)


def test_an_unknown_gpu_has_no_floor():
    assert floor.gpu_of("NVIDIA H999") is None
