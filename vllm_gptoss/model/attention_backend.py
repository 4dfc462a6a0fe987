"""vLLM's FlashAttention backend, with this package's kernels for what comes before it, and for decode steps all of it.

Queries and keys arrive as the projection leaves them. A step in which every request has one query is one launch,
`ops.decode_attention`; before any other step `ops.rotate_and_write` rotates, and fills the cache for FlashAttention.
Cache, metadata and the support of CUDA graphs are FlashAttention's. Graphs of decode steps are captured with queries of
length one and replayed for nothing else, so that the choice made while capturing holds.
"""

import torch
from vllm import envs
from vllm.config import CUDAGraphMode
from vllm.v1.attention.backend import AttentionType, CommonAttentionMetadata
from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadata,
    FlashAttentionMetadataBuilder,
)

from vllm_gptoss import ops
from vllm_gptoss.model.rotary import HeldAngles

_HEAD_DIMS = (32, 64, 128)
_MAX_GROUP = 16
"""Query heads a key-value head: the rows of the smallest product of a tensor core."""


class DecodeAttentionBackend(FlashAttentionBackend):
    # Else vLLM's layer would write keys that are not rotated.
    forward_includes_kv_cache_update = True

    @staticmethod
    def get_impl_cls() -> type["DecodeAttentionImpl"]:
        return DecodeAttentionImpl

    @staticmethod
    def get_builder_cls() -> type["DecodeAttentionBuilder"]:
        return DecodeAttentionBuilder


class DecodeAttentionBuilder(FlashAttentionMetadataBuilder):
    """Steps outside of a graph have as many splits as FlashAttention finds good.

    A graph of decode steps would need a bound on them, and vLLM sets it for all steps of so few tokens: partial sums of
    a prompt's every token, half a gigabyte at 1024 tokens, and a launch to combine what is not split.
    """

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> FlashAttentionMetadata:
        metadata = super().build(common_prefix_len, common_attn_metadata, fast_build)
        mode = self.compilation_config.cudagraph_mode
        if metadata.max_query_len > 1 and mode.mixed_mode() != CUDAGraphMode.FULL and not envs.VLLM_BATCH_INVARIANT:
            metadata.max_num_splits = 0
        return metadata


class DecodeAttentionImpl(FlashAttentionImpl):
    angles: HeldAngles
    """Of the step, shared by the layers of a model."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.window = None if self.sliding_window == (-1, -1) else self.sliding_window[0] + 1
        self.serves_decode = (
            self.attn_type == AttentionType.DECODER
            and self.sinks is not None
            and self.alibi_slopes is None
            and not self.logits_soft_cap
            and self.kv_sharing_target_layer_name is None
            # The model's dtype while it is built, which "auto" stands for.
            and torch.get_default_dtype() == torch.bfloat16
            and self.kv_cache_dtype in ("auto", "bfloat16")
            and self.dcp_world_size == 1
            # The number of splits, and with it the order of sums, follows the size of the batch.
            and not self.batch_invariant_enabled
            and self.head_size in _HEAD_DIMS
            and self.num_queries_per_kv <= _MAX_GROUP
        )

    def forward(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: FlashAttentionMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As FlashAttention's, with `query` [M, Hq, D], `key` and `value` [M, Hkv, D] not rotated.

        `output` is [M, Hq, D], `kv_cache` [blocks, Hkv, block, 2 D].
        """
        if attn_metadata is None:
            # vLLM measures memory, before there is a cache.
            return super().forward(
                layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale
            )
        tokens = attn_metadata.num_actual_tokens
        cos, sin = self.angles.held
        slots = attn_metadata.slot_mapping[:tokens]
        keys, values = kv_cache.split(self.head_size, dim=-1)
        is_plain = output_scale is None and output_block_scale is None
        if not (self.serves_decode and is_plain and _is_decode(attn_metadata)):
            query = ops.rotate_and_write(query, key, value, cos, sin, slots, keys, values)
            return super().forward(
                layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale
            )
        ops.decode_attention(
            query[:tokens],
            keys,
            values,
            attn_metadata.block_table,
            attn_metadata.seq_lens,
            self.sinks,
            self.scale,
            self.window,
            output[:tokens],
            # While capturing, the longest that the model serves.
            attn_metadata.max_seq_len,
            ops.NewTokens(key[:tokens], value[:tokens], cos[:tokens], sin[:tokens], slots),
        )
        return output


def _is_decode(metadata: FlashAttentionMetadata | None) -> bool:
    """Every request has one query, in its own row; rows that fill up a CUDA graph's batch are requests of no keys."""
    return (
        metadata is not None
        and metadata.max_query_len == 1
        and metadata.num_actual_tokens == metadata.seq_lens.shape[0]
        and metadata.causal is True
        and metadata.mm_prefix_query_range_tensor is None
        and metadata.rswa_prefix_lens is None
    )
