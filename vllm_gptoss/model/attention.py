"""Grouped-query attention with a learned sink per head; sliding and full layers alternate.

Source: arithmetic section of the gpt-oss model card; the sinks follow Xiao et al. 2023 (arXiv 2309.17453).
"""

import torch
from torch import nn
from vllm.config import CacheConfig, get_current_vllm_config
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.linear import QKVParallelLinear, RowParallelLinear, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.model_loader.weight_utils import sharded_weight_loader
from vllm.model_executor.utils import set_weight_attrs
from vllm.v1.attention.backend import AttentionBackend

from vllm_gptoss import ops
from vllm_gptoss.model.config import ModelArgs
from vllm_gptoss.model.decode_layers import DecodeLinearMethod
from vllm_gptoss.model.kernel_choice import choose_kernels
from vllm_gptoss.model.rotary import HeldAngles, RotaryAngles


class GptOssAttention(nn.Module):
    def __init__(
        self,
        args: ModelArgs,
        window: int | None,
        cache_config: CacheConfig | None,
        quant_config: QuantizationConfig | None,
        angles: RotaryAngles,
        prefix: str,
    ) -> None:
        super().__init__()
        self.head_dim = args.head_dim
        self.qkv_proj = QKVParallelLinear(
            hidden_size=args.hidden_size,
            head_size=args.head_dim,
            total_num_heads=args.num_heads,
            # With fewer KV heads than ranks, vLLM's layer keeps a copy of a head on several ranks.
            total_num_kv_heads=args.num_kv_heads,
            bias=True,
            quant_config=quant_config,
            prefix=f"{prefix}.qkv_proj",
        )
        self.num_heads = self.qkv_proj.num_heads
        self.num_kv_heads = self.qkv_proj.num_kv_heads
        self.o_proj = RowParallelLinear(
            input_size=args.num_heads * args.head_dim,
            output_size=args.hidden_size,
            bias=True,
            quant_config=quant_config,
            prefix=f"{prefix}.o_proj",
        )
        self.sinks = nn.Parameter(
            torch.empty(args.num_heads // get_tensor_model_parallel_world_size()), requires_grad=False
        )
        set_weight_attrs(self.sinks, {"weight_loader": sharded_weight_loader(0)})
        backend = _backend(angles)
        self.rotates = backend is None
        """Else attention does, in the launch that reads the cache."""
        self.attn = Attention(
            self.num_heads,
            args.head_dim,
            scale=args.head_dim**-0.5,
            num_kv_heads=self.num_kv_heads,
            cache_config=cache_config,
            quant_config=quant_config,
            per_layer_sliding_window=window,
            sinks=self.sinks,
            attn_backend=backend,
            prefix=f"{prefix}.attn",
        )
        if not self.rotates:
            self.attn.impl.angles = angles
        if choose_kernels(get_current_vllm_config()).dense:
            for layer in (self.qkv_proj, self.o_proj):
                if type(layer.quant_method) is UnquantizedLinearMethod:
                    layer.quant_method = DecodeLinearMethod()

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """x [M, H], cos and sin [M, D/2] fp32; returns [M, H], summed over tensor-parallel ranks."""
        qkv, _ = self.qkv_proj(x)
        heads = qkv.view(-1, self.num_heads + 2 * self.num_kv_heads, self.head_dim)
        qk, v = heads.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=1)
        if self.rotates:
            # Queries and keys together: one launch less a layer.
            qk = ops.rope(qk, cos, sin)
        q, k = qk.split([self.num_heads, self.num_kv_heads], dim=1)
        out, _ = self.o_proj(self.attn(q.flatten(1), k.flatten(1), v.flatten(1)))
        return out


def _backend(angles: RotaryAngles) -> type[AttentionBackend] | None:
    """This package's, which needs angles that are held, or None for what vLLM selects."""
    if not isinstance(angles, HeldAngles):
        return None
    # Imported here: it needs FlashAttention's library.
    from vllm_gptoss.model.attention_backend import DecodeAttentionBackend

    return DecodeAttentionBackend
