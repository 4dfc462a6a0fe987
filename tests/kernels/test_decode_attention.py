"""Decode attention split over the keys, against the specification that prompts are held to as well."""

import math
import os
from dataclasses import replace

import pytest
import torch
from decode_step import POSITION, Case, Step, angles, make
from sizes import ON_A_GPU

from vllm_gptoss.kernels import decode_attention as module
from vllm_gptoss.kernels.decode_attention import launch_config

# Each weight is rounded, 2^-9 of it, and what is lost of one goes to the others: 2^-9 of the distance of a value from
# the output, up to 4 for values near 1. The output is rounded once.
TOLERANCE = {"rtol": 2**-8, "atol": 2**-7}
EXACT = {"rtol": 0, "atol": 0, "equal_nan": True}

SMALL, MODEL = (8, 2, 32), (64, 8, 64)
"""Heads, key-value heads, D."""

LENGTHS = [1, 2, 127, 0, 128, 129, 0, 500]

SHAPES = {
    # length of each request, the new token counted; heads; window; positions of a block
    "one key": ([1], SMALL, None, 16),
    "around a tile": ([2, 63, 64, 65, 66], SMALL, None, 16),
    "around two tiles": ([127, 128, 129, 130], SMALL, None, 16),
    "a tile and its new key": ([65], SMALL, None, 16),
    "two splits of a tile and the new key": ([129], (3, 1, 32), None, 16),
    "splits, the last one short": ([500], SMALL, None, 16),
    "more splits than one request needs": ([40, 700], SMALL, None, 16),
    "mixture": ([300, 1, 0, 17, 129, 0, 64], SMALL, None, 16),
    "mixture, window": ([300, 1, 0, 17, 129, 0, 128], SMALL, 128, 16),
    "narrow window": ([300, 1, 19, 20, 21], SMALL, 20, 16),
    "window of three tiles": ([300, 150, 151, 400], SMALL, 150, 16),
    "narrowest": ([1, 2, 0], (1, 1, 32), 1, 16),
    "group of 1": ([70, 3], (2, 2, 64), None, 16),
    "group of 3": ([70, 300], (9, 3, 32), None, 16),
    "group of 8": (LENGTHS, (8, 1, 64), None, 16),
    "group of 8, window": (LENGTHS, (8, 1, 64), 128, 16),
    "group of 16": ([70, 300], (16, 1, 64), None, 16),
    "splits of a group of 8": ([1000], (8, 1, 64), None, 16),
    "D = 128": (LENGTHS, (4, 1, 128), None, 16),
    "D = 128, window": (LENGTHS, (4, 1, 128), 128, 64),
    "blocks of 48": ([70, 200], SMALL, None, 48),
    "blocks of 64": (LENGTHS, (8, 2, 64), None, 64),
    "blocks of 64, window": (LENGTHS, (8, 2, 64), 128, 64),
    "blocks of 256": ([70, 600], SMALL, 128, 256),
    "no request": ([], SMALL, None, 16),
    "padded rows only": ([0, 0], SMALL, None, 16),
    "20b, window": ([200], MODEL, 128, 16),
    "20b": ([200], MODEL, None, 16),
}

LARGE = {
    "4096": ([4096], MODEL, None, 16),
    "5000": ([5000] * 3, MODEL, None, 16),
    "5000, window": ([5000] * 3, MODEL, 128, 16),
    "40000": ([40000], MODEL, None, 16),
    "40000 among short ones": ([1, 40000, 300, 0, 4097], MODEL, None, 16),
    "512 requests": ([1 + 7 * r % 2049 for r in range(512)], MODEL, None, 16),
    "512 requests, window": ([1 + 7 * r % 2049 for r in range(512)], MODEL, 128, 16),
    "a rank of four": ([3000] * 33, (16, 2, 64), None, 32),
}


@pytest.fixture(autouse=True)
def uninitialised_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def nearest_bf16(monkeypatch):
    """What Triton's interpreter lacks: up to 3.7 it cuts fp32 off where a GPU rounds it to the nearest bf16."""
    if "TRITON_INTERPRET" not in os.environ:
        return
    import triton.language as tl
    from triton.runtime import interpreter

    plain = interpreter._convert_float

    def convert(data, source, target, rounding_mode):
        if (source, target) != (tl.float32, tl.bfloat16):
            return plain(data, source, target, rounding_mode)
        rounded = torch.from_numpy(data.copy()).bfloat16()
        return rounded.view(torch.int16).numpy().view("uint16")

    monkeypatch.setattr(interpreter, "_convert_float", convert)


def assert_same(step: Step, expected: Step) -> None:
    """Outputs but for what is rounded, and caches bit by bit."""
    torch.testing.assert_close(step.out.float(), expected.out.float(), **TOLERANCE)
    torch.testing.assert_close(step.key_cache, expected.key_cache, **EXACT)
    torch.testing.assert_close(step.value_cache, expected.value_cache, **EXACT)


@pytest.mark.parametrize("max_seq_len", [64, 131072], ids=["not split", "split"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_decode_attention(shape, max_seq_len, device):
    case = make(*shape, device)
    step = case.run(max_seq_len)
    assert_same(step, case.expected())
    assert step.out[case.seq_lens == 0].eq(0).all()
    # The second run also finds the counters as the first one left them.
    assert torch.equal(case.run(max_seq_len).out, step.out)


@ON_A_GPU
@pytest.mark.parametrize("shape", LARGE.values(), ids=LARGE)
def test_large(shape, device):
    case = make(*shape, device)
    step = case.run()
    assert_same(step, case.expected())
    for _ in range(20):
        assert torch.equal(case.run().out, step.out)


def test_splits_change_little(device, monkeypatch):
    # Enough for 32 splits of all requests, also in the interpreter.
    monkeypatch.setattr(module, "_PROGRAMS_PER_PROCESSOR", 64)
    module._scratch.cache_clear()
    case = make([500, 130, 0], SMALL, None, 16, device)
    steps = []
    for splits in (1, 2, 4, 8, 32):
        assert launch_config(3, 2, 4, 32, None, 64 * splits, processors=4).splits == splits
        steps.append(case.run(max_seq_len=64 * splits))
    module._scratch.cache_clear()
    for step in steps[1:]:
        assert_same(step, steps[0])


def test_tokens_without_a_slot_are_attended_and_not_written(device):
    case = make([1, 100, 0], SMALL, None, 16, device)
    given = case.arguments()
    # In front lies the first block, which no request has: there slot -1 would be.
    out = case.run(
        key_cache=given["key_cache"][1:],
        value_cache=given["value_cache"][1:],
        block_table=case.block_table - 1,
        new=case.new._replace(slots=torch.full_like(case.new.slots, -1)),
    ).out
    assert torch.equal(out, case.run().out)
    caches = torch.cat((given["key_cache"], given["value_cache"]), dim=-1)
    torch.testing.assert_close(caches, case.kv_cache, **EXACT)


def rotated_by(case: Case, position: int) -> Case:
    cos, sin = (x.to(case.q.device) for x in angles(torch.tensor([position]), case.q.shape[-1]))
    return replace(case, new=case.new._replace(cos=cos, sin=sin))


MISTAKES = {
    "window one less": lambda case: replace(case, window=case.window - 1),
    "window one more": lambda case: replace(case, window=case.window + 1),
    "no window": lambda case: replace(case, window=None),
    "no sinks": lambda case: replace(case, sinks=torch.full_like(case.sinks, -math.inf)),
    "sinks doubled": lambda case: replace(case, sinks=case.sinks + math.log(2)),
    "scale": lambda case: replace(case, scale=case.scale * 1.03),
    "length": lambda case: replace(case, seq_lens=case.seq_lens - 1),
    "no rotation": lambda case: rotated_by(case, 0),
    "rotated by the position before": lambda case: rotated_by(case, POSITION - 1),
    "not written": lambda case: replace(case, new=case.new._replace(slots=case.new.slots * 0 - 1)),
    "written to the next slot": lambda case: replace(case, new=case.new._replace(slots=case.new.slots + 1)),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_inputs_show_a_mistake(mistake, device):
    # Written without a window: what lies before it is there to be read by mistake.
    case = replace(make([300], SMALL, None, 16, device), window=128)
    expected = case.expected()
    assert_same(case.run(), expected)
    mistaken = mistake(case).run()
    assert mistaken.out.isfinite().all()
    with pytest.raises(AssertionError):
        assert_same(mistaken, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sinks_of_any_size(dtype, device):
    case = make([300, 5, 0], SMALL, None, 16, device)
    for sink in (-math.inf, -1e30, 0.0, 1e30):
        extreme = replace(case, sinks=torch.full(case.sinks.shape, sink, dtype=dtype, device=device))
        assert_same(extreme.run(), extreme.expected())


def test_large_logits_do_not_overflow(device):
    case = make([300, 5], SMALL, None, 16, device)
    assert replace(case, q=case.q * 1e4).run().out.isfinite().all()


def test_queries_outputs_and_caches_may_be_strided(device):
    case = make([300, 5], SMALL, 128, 16, device)
    expected, given, head_dim = case.run(max_seq_len=300), case.arguments(), case.q.shape[-1]
    q, keys, values = (x.repeat(1, 1, 2)[..., :head_dim] for x in (case.q, case.new.keys, case.new.values))
    out = torch.full((*q.shape[:2], 3 * head_dim), math.nan, dtype=q.dtype, device=device)
    step = case.run(
        max_seq_len=300,
        q=q,
        out=out[..., :head_dim],
        key_cache=given["key_cache"].contiguous(),
        value_cache=given["value_cache"].contiguous(),
        new=case.new._replace(keys=keys, values=values),
    )
    assert torch.equal(step.out, expected.out)
    assert_same(step, expected)
    assert out[..., head_dim:].isnan().all()


def test_what_is_refused(device):
    case = make([5, 6], SMALL, None, 16, device)
    given, new = case.arguments() | {"out": torch.empty_like(case.q)}, case.new
    turned = lambda x: x.mT.contiguous().mT  # noqa: E731
    for message, changes in (
        ("differ in their strides", {"value_cache": given["value_cache"].contiguous()}),
        ("differ in their strides", {"new": new._replace(values=new.values.contiguous())}),
        ("last dimension", {"key_cache": turned(given["key_cache"]), "value_cache": turned(given["value_cache"])}),
        ("last dimension", {"new": new._replace(keys=turned(new.keys), values=turned(new.values))}),
        *(("last dimension", {name: turned(given[name])}) for name in ("q", "out", "block_table")),
        ("cos or sin", {"new": new._replace(cos=turned(new.cos))}),
        ("cos or sin", {"new": new._replace(sin=turned(new.sin))}),
    ):
        with pytest.raises(ValueError, match=message):
            case.run(**changes)
    with pytest.raises(ValueError, match="17 query heads over 1"):
        make([5], (17, 1, 32), None, 16, device).run()


@pytest.mark.parametrize("num_kv_heads", [1, 2, 8])
@pytest.mark.parametrize("processors", [4, 78, 132])
def test_splits_fit_what_is_kept_for_them(num_kv_heads, processors):
    seen = set()
    for requests in range(1, 600):
        splits = launch_config(requests, num_kv_heads, 8, 64, None, 131072, processors).splits
        seen.add(splits)
        assert splits == 1 or requests * num_kv_heads < module._PROGRAMS_PER_PROCESSOR * processors
        assert splits == 1 or requests * num_kv_heads * splits <= 2 * module._PROGRAMS_PER_PROCESSOR * processors
    assert 1 in seen
    assert len(seen) > 1


def test_a_window_of_one_tile_is_not_split():
    assert launch_config(1, 8, 8, 64, 128, 131072, 132).splits == 1


def test_windows_of_many_requests_take_tiles_of_few_registers():
    tiles = [launch_config(requests, 8, 8, 64, 128, 131072, 132).constants["tile"] for requests in (1, 49, 50, 512)]
    assert tiles == [128, 128, 64, 64]
