"""vLLM's attention backend without an accelerator: `ops.sink_attention` over the paged KV cache.

A layer's cache is [blocks, kv_heads, block, 2 D], keys in the first half of the last dimension.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from vllm.config import VllmConfig
from vllm.v1.attention.backend import (
    AttentionBackend,
    AttentionImpl,
    AttentionLayer,
    AttentionMetadata,
    AttentionMetadataBuilder,
    AttentionType,
    CommonAttentionMetadata,
)
from vllm.v1.kv_cache_interface import KVCacheLayout, KVCacheSpec

from vllm_gptoss import ops


class CpuAttentionBackend(AttentionBackend):
    supported_dtypes: ClassVar[list[torch.dtype]] = [torch.bfloat16, torch.float16, torch.float32]
    # vLLM writes the cache through `do_kv_cache_update`, a step of its own before `forward`.
    forward_includes_kv_cache_update = False

    @staticmethod
    def get_name() -> str:
        return "CUSTOM"  # the member of vLLM's enumeration that the platform registers this class under

    @staticmethod
    def get_impl_cls() -> type["CpuAttentionImpl"]:
        return CpuAttentionImpl

    @staticmethod
    def get_builder_cls() -> type["CpuAttentionMetadataBuilder"]:
        return CpuAttentionMetadataBuilder

    @classmethod
    def supported_kv_cache_layouts(cls) -> tuple[KVCacheLayout, ...]:
        return (KVCacheLayout.LBHNC,)

    @classmethod
    def supports_sink(cls) -> bool:
        return True

    @classmethod
    def supports_sliding_window(cls) -> bool:
        return True


@dataclass
class CpuAttentionMetadata(AttentionMetadata):
    """One step: R requests, M tokens."""

    query_start: torch.Tensor  # [R + 1]
    seq_lens: torch.Tensor  # [R]
    block_table: torch.Tensor  # [R, blocks]
    slot_mapping: torch.Tensor  # [M]
    num_tokens: int


class CpuAttentionMetadataBuilder(AttentionMetadataBuilder[CpuAttentionMetadata]):
    def __init__(
        self,
        kv_cache_spec: KVCacheSpec,
        layer_names: list[str],
        vllm_config: VllmConfig,
        device: torch.device,
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> CpuAttentionMetadata:
        common = common_attn_metadata
        return CpuAttentionMetadata(
            query_start=common.query_start_loc_cpu[: common.num_reqs + 1],
            seq_lens=common.seq_lens[: common.num_reqs],
            block_table=common.block_table_tensor[: common.num_reqs],
            slot_mapping=common.slot_mapping,
            num_tokens=common.num_actual_tokens,
        )


class CpuAttentionImpl(AttentionImpl):
    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = AttentionType.DECODER,
        kv_sharing_target_layer_name: str | None = None,
        sinks: torch.Tensor | None = None,
    ) -> None:
        if alibi_slopes is not None or logits_soft_cap or attn_type != AttentionType.DECODER:
            raise NotImplementedError(
                "the CPU attention of vllm-gptoss decodes causally, without ALiBi or a cap on logits"
            )
        self.num_heads = num_heads
        self.head_size = head_size
        self.num_kv_heads = num_kv_heads
        self.scale = scale
        self.window = sliding_window
        self.sinks = sinks
        self.kv_cache_dtype = kv_cache_dtype
        self.kv_sharing_target_layer_name = kv_sharing_target_layer_name

    def do_kv_cache_update(
        self,
        layer: torch.nn.Module,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
    ) -> None:
        """key and value [M, kv_heads, D]; slot_mapping [M], negative where a token is padding."""
        written = slot_mapping >= 0
        slots = slot_mapping[written]
        block = kv_cache.shape[2]
        both = torch.cat([key[: len(written)], value[: len(written)]], dim=-1)[written]
        kv_cache[slots // block, :, slots % block] = both.to(kv_cache.dtype)

    def forward(
        self,
        layer: AttentionLayer,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: CpuAttentionMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """query [M, heads, D], key and value [M, kv_heads, D]; fills and returns output."""
        if attn_metadata is None:  # vLLM measures memory with a step that has no requests.
            return output.zero_()
        step = attn_metadata
        out = ops.sink_attention(
            query[: step.num_tokens],
            kv_cache[..., : self.head_size],
            kv_cache[..., self.head_size :],
            step.block_table,
            step.query_start,
            step.seq_lens,
            self.sinks,
            self.scale,
            self.window,
        )
        output[: step.num_tokens].view_as(out).copy_(out)
        return output
