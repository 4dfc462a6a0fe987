"""Paged attention with sinks against fp64 token by token, and against Transformers."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vllm_gptoss.kernels import sink_attention
from vllm_gptoss.kernels.sink_attention import sink_attention_ref

# Outputs are averages of values near 1. fp32: sums of D products and of as many values as there are keys.
# bf16: one rounding of the output.
TOLERANCE = {
    torch.float32: {"rtol": 1e-5, "atol": 2e-6},
    torch.bfloat16: {"rtol": 2**-8 + 1e-5, "atol": 4e-6},
}

BLOCK = 16

SHAPES = {
    # (queries, length) of each request; heads, key-value heads, D; window
    "decode": ([(1, 37), (1, 1), (1, 16), (1, 200)], (8, 2, 32), None),
    "decode, window": ([(1, 37), (1, 1), (1, 16), (1, 200), (1, 129)], (8, 2, 32), 128),
    "prompt": ([(50, 50)], (8, 2, 32), None),
    "prompt past a tile": ([(300, 300)], (4, 2, 16), None),
    "prompt past a tile, window": ([(300, 300)], (4, 2, 16), 128),
    "later part of a prompt": ([(70, 333)], (4, 1, 16), None),
    "later part of a prompt, window": ([(70, 333)], (4, 1, 16), 128),
    "mixed": ([(1, 90), (33, 33), (0, 0), (1, 5), (7, 150), (33, 40), (0, 20)], (6, 3, 24), None),
    "mixed, window": ([(1, 90), (33, 33), (0, 0), (1, 5), (7, 150), (33, 40), (0, 20)], (6, 3, 24), 20),
    "one past a block": ([(BLOCK + 1, BLOCK + 1), (1, BLOCK + 1)], (2, 2, 8), BLOCK),
    "narrowest": ([(1, 1), (2, 2)], (1, 1, 1), 1),
    "odd": ([(3, 19), (5, 5)], (9, 3, 7), 3),
    "no request": ([], (4, 2, 16), None),
    "empty requests": ([(0, 0), (0, 7)], (4, 2, 16), 4),
    "20b": ([(1, 300), (9, 140)], (64, 8, 64), 128),
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
    query_start: torch.Tensor
    seq_lens: torch.Tensor
    sinks: torch.Tensor | None
    scale: float
    window: int | None

    def run(self) -> torch.Tensor:
        return sink_attention_ref(**vars(self))


def make(requests, heads, window, dtype=torch.float32, padding=0, seed=0) -> Case:
    """A case in which every slot that no query may read is NaN, and every page that none needs invalid."""
    num_heads, num_kv_heads, head_dim = heads
    generator = torch.Generator().manual_seed(seed)
    needed = [-(-length // BLOCK) for _, length in requests]
    free = (1 + torch.randperm(sum(needed), generator=generator)).tolist()
    shape = (1 + sum(needed), num_kv_heads, BLOCK, head_dim)
    key_cache, value_cache = (torch.full(shape, math.nan, dtype=dtype) for _ in range(2))
    block_table = torch.full((len(requests), max(needed, default=0) + 2), 2**31 - 1, dtype=torch.int32)
    for request, (queries, length) in enumerate(requests):
        first = 0 if window is None else max(0, length - queries - window + 1)
        for position in range(first if queries else length, length):
            if block_table[request, position // BLOCK] == 2**31 - 1:
                block_table[request, position // BLOCK] = free.pop()
            for cache in (key_cache, value_cache):
                new = torch.randn(num_kv_heads, head_dim, generator=generator)
                cache[block_table[request, position // BLOCK], :, position % BLOCK] = new.to(dtype)
    starts = [0]
    for queries, _ in requests:
        starts.append(starts[-1] + queries)
    return Case(
        # Peaked enough that one key more or less shows.
        q=(2 * torch.randn(starts[-1] + padding, num_heads, head_dim, generator=generator)).to(dtype),
        key_cache=key_cache,
        value_cache=value_cache,
        block_table=block_table,
        query_start=torch.tensor(starts, dtype=torch.int32),
        seq_lens=torch.tensor([length for _, length in requests], dtype=torch.int32),
        sinks=4 + 1.5 * torch.randn(num_heads, generator=generator),
        # Not the default of anything.
        scale=0.9 * head_dim**-0.5,
        window=window,
    )


def naive(case: Case) -> torch.Tensor:
    out = torch.zeros(case.q.shape, dtype=torch.float64)
    group = case.q.shape[1] // case.key_cache.shape[1]
    for request, length in enumerate(case.seq_lens.tolist()):
        start, stop = case.query_start[request : request + 2].tolist()
        for row in range(start, stop):
            position = length - (stop - row)
            oldest = 0 if case.window is None else max(0, position - case.window + 1)
            where = [divmod(p, BLOCK) for p in range(oldest, position + 1)]
            pages = [(int(case.block_table[request, page]), slot) for page, slot in where]
            if not pages:
                continue
            keys, values = (
                torch.stack([cache[page, :, slot] for page, slot in pages]).double()
                for cache in (case.key_cache, case.value_cache)
            )
            for head in range(case.q.shape[1]):
                share = torch.exp(keys[:, head // group] @ case.q[row, head].double() * case.scale)
                sink = 0.0 if case.sinks is None else math.exp(case.sinks[head])
                out[row, head] = share @ values[:, head // group] / (share.sum() + sink)
    return out


def assert_near(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected, **TOLERANCE[actual.dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_sink_attention(shape, dtype):
    case = make(*shape, dtype)
    out = case.run()
    assert (out.shape, out.dtype) == (case.q.shape, dtype)
    assert_near(out, naive(case))


@pytest.mark.parametrize("name", ["decode, window", "mixed", "prompt past a tile, window"])
def test_without_sinks(name):
    case = replace(make(*SHAPES[name]), sinks=None)
    assert_near(case.run(), naive(case))


def test_sinks_may_be_bf16():
    case = make(*SHAPES["mixed"])
    rounded = case.sinks.bfloat16()
    assert torch.equal(replace(case, sinks=rounded).run(), replace(case, sinks=rounded.float()).run())


MISTAKES = {
    "window one less": lambda case: replace(case, window=case.window - 1),
    "window one more": lambda case: replace(case, window=case.window + 1),
    "no window": lambda case: replace(case, window=None),
    "no sinks": lambda case: replace(case, sinks=None),
    "sinks doubled": lambda case: replace(case, sinks=case.sinks + math.log(2)),
    "scale": lambda case: replace(case, scale=case.scale * 1.01),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("requests", [[(1, 300)], [(140, 300)]], ids=["decode", "prompt"])
@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_inputs_show_a_mistake(mistake, requests, dtype):
    # Written without a window: what lies before it is there to be read by mistake.
    case = replace(make(requests, (4, 2, 16), None, dtype), window=128)
    assert_near(case.run(), naive(case))
    with pytest.raises(AssertionError):
        assert_near(case.run(), naive(mistake(case)))


def test_rows_of_no_request_are_zero():
    shape = SHAPES["mixed"]
    padded = make(*shape, padding=5)
    assert torch.equal(padded.run()[:-5], replace(padded, q=padded.q[:-5]).run())
    assert padded.run()[-5:].eq(0).all()
    assert make([], (4, 2, 16), None, padding=3).run().eq(0).all()


def test_queries_before_position_zero_are_zero():
    # A request of no keys, and one whose first two rows come before its sequence begins.
    case = make([(1, 1), (3, 3), (5, 5)], (4, 2, 16), None)
    short = replace(case, seq_lens=torch.tensor([0, 1, 5], dtype=torch.int32))
    out = short.run()
    assert out[:3].eq(0).all()
    assert_near(out, naive(short))
    assert torch.equal(out[4:], case.run()[4:])


def test_large_logits_do_not_overflow():
    case = make(*SHAPES["mixed"])
    loud = replace(case, q=case.q * 1e4)
    # In fp64 exp overflows too: at this scale the largest logit takes it all, or the sink.
    assert loud.run().isfinite().all()
    silent = replace(case, sinks=torch.full_like(case.sinks, 1e30))
    assert silent.run().eq(0).all()
    gone = replace(case, sinks=torch.full_like(case.sinks, -math.inf))
    assert_near(gone.run(), naive(replace(case, sinks=None)))


LAYOUTS = {
    "keys beside values": lambda k, v: torch.stack((k, v), dim=1).unbind(1),
    "values after keys": lambda k, v: torch.cat((k, v), dim=-1).chunk(2, dim=-1),
    "slots before heads": lambda k, v: [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (k, v)],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_caches_and_queries_may_be_strided(layout):
    case = make(*SHAPES["mixed, window"])
    keys, values = layout(case.key_cache, case.value_cache)
    assert not (keys.is_contiguous() and values.is_contiguous())
    q = torch.cat((case.q, case.q), dim=1)[:, : case.q.shape[1]]
    strided = replace(case, q=q, key_cache=keys, value_cache=values)
    assert torch.equal(strided.run(), case.run())


@pytest.mark.parametrize("integer", [torch.int32, torch.int64], ids=str)
def test_integers_of_either_size(integer):
    case = make(*SHAPES["mixed"])
    tables = {name: getattr(case, name).to(integer) for name in ("block_table", "query_start", "seq_lens")}
    assert torch.equal(replace(case, **tables).run(), case.run())


def test_inputs_are_not_written():
    case = make(*SHAPES["mixed"])
    before = {name: value.clone() for name, value in vars(case).items() if isinstance(value, torch.Tensor)}
    case.run()
    for name, value in before.items():
        assert torch.equal(getattr(case, name).nan_to_num(), value.nan_to_num()), name


# One key and one head at a time, some heads, some requests.
@pytest.mark.parametrize("values", [1, 1 << 10, 1 << 14])
@pytest.mark.parametrize("name", ["decode", "decode, window", "mixed", "mixed, window", "one past a block"])
def test_tiles_change_nothing(monkeypatch, name, values):
    case = make(*SHAPES[name])
    whole = case.run()
    monkeypatch.setattr(sink_attention, "_TILE_VALUES", values)
    monkeypatch.setattr(sink_attention, "_TILE_QUERIES", 5)
    torch.testing.assert_close(case.run(), whole, **TOLERANCE[torch.float32])


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor that operations returned, views of `inputs` excepted."""

    def __init__(self, *inputs: torch.Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in self.known:
            self.bytes = max(self.bytes, out.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize(
    ("requests", "window"),
    [([(1, 1500)] * 20, None), ([(900, 900)], None), ([(900, 2000)], 128), ([(1, 900)] * 300, 32)],
    ids=["decode", "prompt", "prompt, window", "decode, window"],
)
def test_memory_is_bounded(monkeypatch, requests, window):
    monkeypatch.setattr(sink_attention, "_TILE_VALUES", 1 << 14)
    queries = sum(count for count, _ in requests)
    longest = max(length for _, length in requests)
    pages = -(-longest // BLOCK)
    case = Case(
        # Heads so narrow that the output is smaller than a tile.
        q=torch.zeros(queries, 8, 2),
        # Every request reads the same pages.
        key_cache=torch.zeros(pages, 2, BLOCK, 2),
        value_cache=torch.zeros(pages, 2, BLOCK, 2),
        block_table=torch.arange(pages).expand(len(requests), -1),
        query_start=torch.tensor([0] + [count for count, _ in requests]).cumsum(0),
        seq_lens=torch.tensor([length for _, length in requests]),
        sinks=None,
        scale=1.0,
        window=window,
    )
    with LargestTensor(case.key_cache, case.value_cache) as largest:
        case.run()
    assert largest.bytes <= 4 << 14


@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("queries", [1, 40])
def test_as_transformers(queries, window):
    from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

    length, (num_heads, num_kv_heads, head_dim) = 40, (8, 2, 16)
    case = make([(queries, length)], (num_heads, num_kv_heads, head_dim), None)
    case = replace(case, window=window)
    pages = case.block_table[0, : -(-length // BLOCK)].long()
    keys, values = (
        cache[pages].transpose(1, 2).flatten(0, 1)[:length].transpose(0, 1)[None]
        for cache in (case.key_cache, case.value_cache)
    )
    distance = torch.arange(length - queries, length)[:, None] - torch.arange(length)
    visible = (distance >= 0) & (distance < (window or length))
    module = torch.nn.Module()
    module.num_key_value_groups, module.sinks = num_heads // num_kv_heads, case.sinks
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    expected, _ = eager_attention_forward(
        module, case.q.transpose(0, 1)[None], keys, values, mask[None, None], case.scale
    )
    torch.testing.assert_close(case.run(), expected[0], **TOLERANCE[torch.float32])
