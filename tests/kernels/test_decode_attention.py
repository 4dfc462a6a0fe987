"""Decode attention split over the keys, against the specification that prompts are held to as well."""

import functools
import math
from dataclasses import dataclass, replace

import pytest
import torch

from vllm_gptoss.kernels import decode_attention as module
from vllm_gptoss.kernels.decode_attention import decode_attention, launch_config
from vllm_gptoss.kernels.sink_attention import sink_attention_ref

# Each weight is rounded, 2^-9 of it, and what is lost of one goes to the others: 2^-9 of the distance of a value from
# the output, up to 4 for values near 1. The output is rounded once. Triton's interpreter cuts off: twice as far.
TOLERANCE = {"cuda": {"rtol": 2**-8, "atol": 2**-7}, "cpu": {"rtol": 2**-7, "atol": 2**-6}}

SMALL, MODEL = (8, 2, 32), (64, 8, 64)
"""Heads, key-value heads, D."""

SHAPES = {
    # length of each request; heads; window; positions of a block
    "one key": ([1], SMALL, None, 16),
    "short of a tile": ([63], SMALL, None, 16),
    "tile": ([64], SMALL, None, 16),
    "one past a tile": ([65], SMALL, None, 16),
    "around two tiles": ([127, 128, 129], SMALL, None, 16),
    "splits, the last one short": ([500], SMALL, None, 16),
    "more splits than one request needs": ([40, 700], SMALL, None, 16),
    "mixture": ([300, 1, 0, 17, 129, 0, 64], SMALL, None, 16),
    "mixture, window": ([300, 1, 0, 17, 129, 0, 128], SMALL, 128, 16),
    "narrow window": ([300, 1, 19, 20, 21], SMALL, 20, 16),
    "window of three tiles": ([300, 150, 400], SMALL, 150, 16),
    "narrowest": ([1, 2], (1, 1, 32), 1, 16),
    "group of 1": ([70, 3], (2, 2, 64), None, 16),
    "group of 3": ([70, 300], (9, 3, 32), None, 16),
    "group of 16": ([70, 300], (16, 1, 64), None, 16),
    "D = 128": ([70, 300], (8, 2, 128), None, 16),
    "blocks of 48": ([70, 200], SMALL, None, 48),
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


@dataclass
class Case:
    q: torch.Tensor
    key_cache: torch.Tensor
    value_cache: torch.Tensor
    block_table: torch.Tensor
    seq_lens: torch.Tensor
    sinks: torch.Tensor
    scale: float
    window: int | None

    def run(self, max_seq_len: int = 131072) -> torch.Tensor:
        out = torch.full_like(self.q, math.nan)
        decode_attention(**vars(self), out=out, max_seq_len=max_seq_len)
        return out

    def expected(self) -> torch.Tensor:
        """fp32; rows of no request are zero."""
        starts = torch.arange(len(self.q) + 1)
        tensors = vars(self) | {"q": self.q.float(), "query_start": starts}
        return sink_attention_ref(**tensors)


def make(lengths, heads, window, block, device) -> Case:
    """A case in which every slot that no query may read is NaN, and every block that none needs invalid.

    Keys and values of a position lie side by side, heads of a block inside of its positions, as in vLLM's cache.
    """
    num_heads, num_kv_heads, head_dim = heads
    generator = torch.Generator().manual_seed(len(lengths))
    randn = functools.partial(torch.randn, generator=generator)
    firsts = [0 if window is None else max(0, length - window) for length in lengths]
    pages = [
        (-(-length // block) - first // block) if length else 0 for first, length in zip(firsts, lengths, strict=True)
    ]
    free = iter((1 + torch.randperm(sum(pages), generator=generator)).tolist())
    cache = torch.full((1 + sum(pages), block, num_kv_heads, 2 * head_dim), math.nan, dtype=torch.bfloat16)
    width = max((-(-length // block) for length in lengths), default=0) + 2
    block_table = torch.full((len(lengths), width), 2**31 - 1, dtype=torch.int32)
    for request, (first, length, count) in enumerate(zip(firsts, lengths, pages, strict=True)):
        used = torch.tensor([next(free) for _ in range(count)], dtype=torch.int32)
        block_table[request, first // block : first // block + count] = used
        positions = torch.arange(first, length)
        found = block_table[request, positions // block].long()
        cache[found, positions % block] = randn(len(positions), num_kv_heads, 2 * head_dim).bfloat16()
    keys, values = cache.to(device).transpose(1, 2).split(head_dim, dim=-1)
    return Case(
        # Peaked enough that one key more or less shows.
        q=(2 * randn(len(lengths), num_heads, head_dim)).bfloat16().to(device),
        key_cache=keys,
        value_cache=values,
        block_table=block_table.to(device),
        seq_lens=torch.tensor(lengths, dtype=torch.int32, device=device),
        sinks=(2 + 1.5 * randn(num_heads)).bfloat16().to(device),
        # Not the default of anything.
        scale=0.9 * head_dim**-0.5,
        window=window,
    )


def assert_near(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual.float(), expected, **TOLERANCE[actual.device.type])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_decode_attention(shape, device):
    case = make(*shape, device)
    out = case.run()
    assert_near(out, case.expected())
    assert out[case.seq_lens == 0].eq(0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="too large for the interpreter")
@pytest.mark.parametrize("shape", LARGE.values(), ids=LARGE)
def test_large(shape, device):
    case = make(*shape, device)
    out = case.run()
    assert_near(out, case.expected())
    for _ in range(20):
        assert torch.equal(case.run(), out)


@pytest.mark.parametrize("name", ["splits, the last one short", "mixture"])
def test_two_runs_are_bit_equal(name, device):
    # The second run also finds the counters as the first one left them.
    case = make(*SHAPES[name], device)
    assert torch.equal(case.run(), case.run())


def test_splits_change_little(device, monkeypatch):
    case = make([500, 130, 0], SMALL, None, 16, device)
    whole = case.run(max_seq_len=64)
    parts = []
    plain = launch_config
    for splits in (2, 4, 8, 32):
        configure = lambda *args, n=splits: plain(1, 1, *args[2:-1], 1 << 20)._replace(splits=n)  # noqa: E731
        monkeypatch.setattr(module, "launch_config", configure)
        monkeypatch.setattr(module, "_PROGRAMS_PER_PROCESSOR", 64)
        module._scratch.cache_clear()
        parts.append(case.run())
    module._scratch.cache_clear()
    for part in parts:
        assert_near(part, whole.float())


MISTAKES = {
    "window one less": lambda case: replace(case, window=case.window - 1),
    "window one more": lambda case: replace(case, window=case.window + 1),
    "no window": lambda case: replace(case, window=None),
    "no sinks": lambda case: replace(case, sinks=torch.full_like(case.sinks, -math.inf)),
    "sinks doubled": lambda case: replace(case, sinks=case.sinks + math.log(2)),
    "scale": lambda case: replace(case, scale=case.scale * 1.03),
    "length": lambda case: replace(case, seq_lens=case.seq_lens - 1),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_inputs_show_a_mistake(mistake, device):
    # Written without a window: what lies before it is there to be read by mistake.
    case = replace(make([300], SMALL, None, 16, device), window=128)
    assert_near(case.run(), case.expected())
    with pytest.raises(AssertionError):
        assert_near(case.run(), mistake(case).expected())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sinks_of_any_size(dtype, device):
    case = make([300, 5, 0], SMALL, None, 16, device)
    for sink in (-math.inf, -1e30, 0.0, 1e30):
        extreme = replace(case, sinks=torch.full(case.sinks.shape, sink, dtype=dtype, device=device))
        assert_near(extreme.run(), extreme.expected())


def test_large_logits_do_not_overflow(device):
    case = make([300, 5], SMALL, None, 16, device)
    assert replace(case, q=case.q * 1e4).run().isfinite().all()


def test_queries_outputs_and_caches_may_be_strided(device):
    case = make([300, 5], SMALL, 128, 16, device)
    q = torch.cat((case.q, case.q), dim=-1)[..., : case.q.shape[-1]]
    out = torch.full((*q.shape[:2], 3 * q.shape[2]), math.nan, dtype=q.dtype, device=device)
    keys, values = case.key_cache.contiguous(), case.value_cache.contiguous()
    strided = vars(case) | {"q": q, "key_cache": keys, "value_cache": values}
    decode_attention(**strided, out=out[..., : q.shape[2]], max_seq_len=300)
    assert torch.equal(out[..., : q.shape[2]], case.run(max_seq_len=300))
    assert out[..., q.shape[2] :].isnan().all()


def test_what_is_refused(device):
    case = make([5], SMALL, None, 16, device)
    with pytest.raises(ValueError, match="strides"):
        replace(case, value_cache=case.value_cache.contiguous()).run()
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
