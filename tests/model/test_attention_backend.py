"""Which steps `ops.decode_attention` serves, and which go on to FlashAttention as they came."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from vllm.config import CUDAGraphMode
from vllm.v1.attention.backends import flash_attn
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from vllm_gptoss import ops
from vllm_gptoss.kernels.kv_write import rotate_and_write_ref
from vllm_gptoss.model.attention_backend import DecodeAttentionBackend, DecodeAttentionBuilder, DecodeAttentionImpl

HEADS, KV_HEADS, HEAD_DIM, BLOCK = 8, 2, 64, 16
LENGTHS = [20, 150, 0]


@pytest.fixture(autouse=True)
def stock(monkeypatch):
    """FlashAttention where there may be none: built, and what reaches its `forward` in a list."""
    calls = []
    monkeypatch.setattr(flash_attn, "flash_attn_supports_sinks", lambda: True, raising=False)
    monkeypatch.setattr(flash_attn, "flash_attn_supports_quant_query_input", lambda: False)
    monkeypatch.setattr(flash_attn, "flash_attn_supports_kv_cache_dtype", lambda *args, **kwargs: True)
    monkeypatch.setattr(flash_attn.FlashAttentionImpl, "forward", lambda self, *args: calls.append(args))
    return calls


@pytest.fixture(autouse=True)
def model_dtype():
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


def build(device, window=None, **options) -> DecodeAttentionImpl:
    arguments = {
        "num_heads": HEADS,
        "head_size": HEAD_DIM,
        "scale": 0.1,
        "num_kv_heads": KV_HEADS,
        "alibi_slopes": None,
        "sliding_window": window,
        "kv_cache_dtype": "auto",
        "sinks": torch.linspace(-1, 3, HEADS),
    }
    impl = DecodeAttentionImpl(**(arguments | options))
    generator = torch.Generator().manual_seed(1)
    angles = torch.rand(8, HEAD_DIM // 2, generator=generator, dtype=torch.float32)
    impl.angles = SimpleNamespace(held=torch.stack((angles.cos(), angles.sin())).to(device))
    return impl


def step(device, padding=0, **changes) -> dict:
    """Arguments of `forward` for a decode step of LENGTHS, the last of which fills up a CUDA graph's batch."""
    generator = torch.Generator().manual_seed(0)
    pages = 10
    requests = len(LENGTHS)
    tensors = {
        "query": torch.randn(requests + padding, HEADS, HEAD_DIM, generator=generator, dtype=torch.float32),
        "key": torch.randn(requests + padding, KV_HEADS, HEAD_DIM, generator=generator, dtype=torch.float32),
        "value": torch.randn(requests + padding, KV_HEADS, HEAD_DIM, generator=generator, dtype=torch.float32),
        "kv_cache": torch.randn(pages, BLOCK, KV_HEADS, 2 * HEAD_DIM, generator=generator, dtype=torch.float32),
    }
    tensors = {name: tensor.bfloat16().to(device) for name, tensor in tensors.items()}
    metadata = flash_attn.FlashAttentionMetadata(
        num_actual_tokens=requests,
        max_query_len=1,
        query_start_loc=torch.tensor([0, 1, 2, 2], dtype=torch.int32, device=device),
        max_seq_len=max(LENGTHS),
        seq_lens=torch.tensor(LENGTHS, dtype=torch.int32, device=device),
        block_table=torch.arange(pages, dtype=torch.int32, device=device).expand(requests, -1).contiguous(),
        # More than there are requests, as of a batch with padding.
        slot_mapping=torch.tensor([19, 149, -1, -1, -1, -1], dtype=torch.int64, device=device),
    )
    for name, value in changes.items():
        setattr(metadata, name, value)
    return {
        "layer": SimpleNamespace(),
        "query": tensors["query"],
        "key": tensors["key"],
        "value": tensors["value"],
        "kv_cache": tensors["kv_cache"].transpose(1, 2),
        "attn_metadata": metadata,
        "output": torch.full_like(tensors["query"], torch.nan),
    }


@pytest.mark.parametrize("window", [None, 128])
def test_decode_steps_are_ours(window, device, stock, monkeypatch):
    impl = build(device, window)
    arguments = step(device, padding=2)
    metadata, requests = arguments["attn_metadata"], len(LENGTHS)
    given = {}
    signature = inspect.signature(ops.decode_attention)
    monkeypatch.setattr(ops, "decode_attention", lambda *args: given.update(signature.bind(*args).arguments))

    assert impl.forward(**arguments) is arguments["output"]
    assert not stock
    assert torch.equal(given["q"], arguments["query"][:requests])
    assert torch.equal(given["key_cache"], arguments["kv_cache"][..., :HEAD_DIM])
    assert torch.equal(given["value_cache"], arguments["kv_cache"][..., HEAD_DIM:])
    assert given["block_table"] is metadata.block_table
    assert given["seq_lens"] is metadata.seq_lens
    assert given["sinks"] is impl.sinks
    assert (given["scale"], given["window"], given["max_seq_len"]) == (0.1, window, max(LENGTHS))
    assert given["out"].data_ptr() == arguments["output"].data_ptr()
    assert len(given["out"]) == requests
    new = given["new"]
    assert torch.equal(new.keys, arguments["key"][:requests])
    assert torch.equal(new.values, arguments["value"][:requests])
    assert torch.equal(torch.stack((new.cos, new.sin)), impl.angles.held[:, :requests])
    assert torch.equal(new.slots, metadata.slot_mapping[:requests])


STEPS = {
    "prompts": {"max_query_len": 7},
    "verified drafts": {"max_query_len": 2, "num_actual_tokens": 2 * len(LENGTHS)},
    "rows of no request": {"num_actual_tokens": len(LENGTHS) + 1},
    "not causal": {"causal": False},
    "causal by request": {"causal": torch.ones(len(LENGTHS), dtype=torch.int32)},
    "prefix of an image": {"mm_prefix_query_range_tensor": torch.zeros(len(LENGTHS), 2)},
    "prefix in sight": {"rswa_prefix_lens": torch.zeros(len(LENGTHS))},
}


@pytest.mark.parametrize("changes", STEPS.values(), ids=STEPS)
def test_other_steps_go_on_rotated_and_written(changes, device, stock):
    arguments = step(device, padding=3, **changes)
    tokens = arguments["attn_metadata"].num_actual_tokens
    impl = build(device)
    cache = arguments["kv_cache"].clone()
    expected = rotate_and_write_ref(
        *(arguments[name][:tokens] for name in ("query", "key", "value")),
        *impl.angles.held[:, :tokens],
        arguments["attn_metadata"].slot_mapping[:tokens],
        *cache.split(HEAD_DIM, dim=-1),
    )
    impl.forward(**arguments)
    (call,) = stock
    assert [*call[:1], *call[2:7]] == [value for name, value in arguments.items() if name != "query"]
    torch.testing.assert_close(call[1][:tokens], expected, rtol=2**-7, atol=1e-6)
    torch.testing.assert_close(arguments["kv_cache"], cache, rtol=2**-7, atol=1e-6)


def test_a_profiling_run_goes_on(device, stock):
    arguments = step(device) | {"attn_metadata": None}
    build(device).forward(**arguments)
    assert [call[:7] for call in stock] == [tuple(arguments.values())]


@pytest.mark.parametrize("name", ["output_scale", "output_block_scale"])
def test_a_quantized_output_goes_on(name, device, stock):
    build(device).forward(**step(device), **{name: torch.ones(1)})
    assert len(stock) == 1


LAYERS = {
    "no sinks": {"sinks": None},
    "cap on logits": {"logits_soft_cap": 30.0},
    "ALiBi": {"alibi_slopes": [0.1] * HEADS},
    "quantized cache": {"kv_cache_dtype": "fp8"},
    "cache of another layer": {"kv_sharing_target_layer_name": "model.layers.0.attn"},
    "not a decoder": {"attn_type": "encoder_decoder"},
    "D": {"head_size": 96},
    "group": {"num_heads": 32, "num_kv_heads": 1, "sinks": torch.zeros(32)},
}


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_other_layers_go_on(options, device):
    assert build(device).serves_decode
    assert not build(device, **options).serves_decode


def test_a_layer_without_sinks_goes_on(device, stock):
    build(device, sinks=None).forward(**step(device))
    assert len(stock) == 1


def test_other_dtypes_go_on(device):
    torch.set_default_dtype(torch.float16)
    assert not build(device).serves_decode


def test_batch_invariant_layers_go_on(device, monkeypatch):
    monkeypatch.setattr(flash_attn.envs, "VLLM_BATCH_INVARIANT", True)
    assert not build(device).serves_decode


def test_the_rest_is_flash_attention():
    stock = flash_attn.FlashAttentionBackend
    # The member of vLLM's enumeration that a layer looks up.
    assert AttentionBackendEnum[DecodeAttentionBackend.get_name()] is AttentionBackendEnum.FLASH_ATTN
    # Else the layer would write keys as they came, not rotated.
    assert DecodeAttentionBackend.forward_includes_kv_cache_update
    assert DecodeAttentionBackend.supports_sink() == stock.supports_sink()
    # vLLM groups layers by this name, and ours must not be grouped with its own.
    assert DecodeAttentionBackend.full_cls_name() != stock.full_cls_name()


@pytest.mark.parametrize(
    ("mode", "max_query_len", "splits"),
    [
        (CUDAGraphMode.FULL_AND_PIECEWISE, 1, 32),
        (CUDAGraphMode.FULL_AND_PIECEWISE, 7, 0),
        (CUDAGraphMode.FULL_DECODE_ONLY, 7, 0),
        # One graph for all steps keeps its bound.
        (CUDAGraphMode.FULL, 7, 32),
    ],
)
def test_prompts_have_no_bound_on_splits(mode, max_query_len, splits, monkeypatch):
    """vLLM's builder is not asked: it needs a GPU."""
    stock = SimpleNamespace(max_query_len=max_query_len, max_num_splits=32)
    monkeypatch.setattr(flash_attn.FlashAttentionMetadataBuilder, "build", lambda *_: stock)
    builder = object.__new__(DecodeAttentionBackend.get_builder_cls())
    builder.compilation_config = SimpleNamespace(cudagraph_mode=mode)
    assert isinstance(builder, DecodeAttentionBuilder)
    assert builder.build(0, None).max_num_splits == splits
