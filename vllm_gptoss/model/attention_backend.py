"""vLLM's FlashAttention backend, with `ops.decode_attention` for steps in which every request has one query.

Only `forward` differs, and only in such steps: cache, metadata, the write of keys and values and the support of CUDA
graphs are FlashAttention's. Graphs of decode steps are captured with queries of length one and replayed for nothing
else, so that the choice made while capturing holds.
"""

import torch
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadata,
)

from vllm_gptoss import ops

_HEAD_DIMS = (32, 64, 128)
_MAX_GROUP = 16
"""Query heads a key-value head: the rows of the smallest product of a tensor core."""


class DecodeAttentionBackend(FlashAttentionBackend):
    @staticmethod
    def get_impl_cls() -> type["DecodeAttentionImpl"]:
        return DecodeAttentionImpl


class DecodeAttentionImpl(FlashAttentionImpl):
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
        """As FlashAttention's: `query` and `output` [M, Hq, D], `kv_cache` [blocks, Hkv, block, 2 D]."""
        is_plain = output_scale is None and output_block_scale is None
        if not (self.serves_decode and is_plain and _is_decode(attn_metadata)):
            return super().forward(
                layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale
            )
        requests = attn_metadata.num_actual_tokens
        keys, values = kv_cache.split(self.head_size, dim=-1)
        ops.decode_attention(
            query[:requests],
            keys,
            values,
            attn_metadata.block_table,
            attn_metadata.seq_lens,
            self.sinks,
            self.scale,
            self.window,
            output[:requests],
            # While capturing, the longest that the model serves.
            attn_metadata.max_seq_len,
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
