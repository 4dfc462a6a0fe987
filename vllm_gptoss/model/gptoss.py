"""gpt-oss: embedding, then layers of attention with sinks and sparse experts, then the head.

Source: gpt-oss model card (arXiv 2508.10925); every number comes from the checkpoint's config.json.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.distributed import get_pp_group
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)
from vllm.model_executor.models.interfaces import (
    EagleModelMixin,
    SupportsEagle,
    SupportsEagle3,
    SupportsLoRA,
    SupportsPP,
)
from vllm.model_executor.models.utils import (
    extract_layer_index,
    make_empty_intermediate_tensors_factory,
    make_layers,
    maybe_prefix,
)
from vllm.sequence import IntermediateTensors

from vllm_gptoss.model import loader
from vllm_gptoss.model.attention import GptOssAttention
from vllm_gptoss.model.config import ModelArgs
from vllm_gptoss.model.decode_layers import WholeEmbeddingMethod, norm_class
from vllm_gptoss.model.kernel_choice import choose_kernels, log_choice
from vllm_gptoss.model.moe import GptOssMoE
from vllm_gptoss.model.rotary import HeldAngles, RotaryAngles


class GptOssLayer(nn.Module):
    def __init__(self, vllm_config: VllmConfig, args: ModelArgs, angles: RotaryAngles, prefix: str) -> None:
        super().__init__()
        norm = norm_class(vllm_config)
        self.input_layernorm = norm(args.hidden_size, eps=args.rms_eps)
        self.self_attn = GptOssAttention(
            args,
            window=args.windows[extract_layer_index(prefix)],
            cache_config=vllm_config.cache_config,
            quant_config=vllm_config.quant_config,
            angles=angles,
            prefix=f"{prefix}.self_attn",
        )
        self.post_attention_layernorm = norm(args.hidden_size, eps=args.rms_eps)
        self.mlp = GptOssMoE(vllm_config, args, prefix=f"{prefix}.mlp")

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x and residual [M, H]: their sum is the residual stream, which the next norm adds up."""
        if residual is None:
            residual, x = x, self.input_layernorm(x)
        else:
            x, residual = self.input_layernorm(x, residual)
        x = self.self_attn(x, cos, sin)
        x, residual = self.post_attention_layernorm(x, residual)
        return self.mlp(x), residual


@support_torch_compile
class GptOssModel(nn.Module, EagleModelMixin):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        args = ModelArgs.from_hf(vllm_config.model_config.hf_config.to_dict())
        self.config = vllm_config.model_config.hf_config
        self.embed_tokens = VocabParallelEmbedding(args.vocab_size, args.hidden_size, prefix=f"{prefix}.embed_tokens")
        if type(self.embed_tokens.quant_method) is UnquantizedEmbeddingMethod:
            self.embed_tokens.quant_method = WholeEmbeddingMethod()
        self.rotary = angles = _angles(vllm_config, args)
        self.start_layer, self.end_layer, self.layers = make_layers(
            args.num_layers,
            lambda prefix: GptOssLayer(vllm_config, args, angles, prefix),
            prefix=f"{prefix}.layers",
        )
        self.norm = norm_class(vllm_config)(args.hidden_size, eps=args.rms_eps)
        self.make_empty_intermediate_tensors = make_empty_intermediate_tensors_factory(
            ["hidden_states", "residual"], args.hidden_size
        )

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.embed_tokens(input_ids)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor | IntermediateTensors | tuple[torch.Tensor, list[torch.Tensor]]:
        """input_ids and positions [M]; returns [M, H], or what the next pipeline stage takes."""
        if get_pp_group().is_first_rank:
            x = inputs_embeds if inputs_embeds is not None else self.embed_input_ids(input_ids)
            residual = None
        else:
            assert intermediate_tensors is not None
            x, residual = intermediate_tensors["hidden_states"], intermediate_tensors["residual"]

        cos, sin = self.rotary(positions)
        drafter_states = self._maybe_add_hidden_state([], self.start_layer, x, residual)
        for i in range(self.start_layer, self.end_layer):
            x, residual = self.layers[i](x, residual, cos, sin)
            self._maybe_add_hidden_state(drafter_states, i + 1, x, residual)

        if not get_pp_group().is_last_rank:
            return IntermediateTensors({"hidden_states": x, "residual": residual})
        x, _ = self.norm(x, residual)
        return (x, drafter_states) if drafter_states else x


def _angles(vllm_config: VllmConfig, args: ModelArgs) -> RotaryAngles:
    """Held where this package's attention finds them, if it is this package's."""
    is_power_of_two = args.head_dim & (args.head_dim - 1) == 0
    if not (choose_kernels(vllm_config).attention and is_power_of_two):
        return RotaryAngles(args)
    return HeldAngles(args, vllm_config.scheduler_config.max_num_batched_tokens)


class GptOssForCausalLM(nn.Module, SupportsPP, SupportsEagle, SupportsEagle3, SupportsLoRA):
    is_3d_moe_weight: ClassVar[bool] = True
    packed_modules_mapping: ClassVar[dict[str, list[str]]] = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        self.config = vllm_config.model_config.hf_config
        self.args = ModelArgs.from_hf(self.config.to_dict())
        log_choice(choose_kernels(vllm_config))
        self.model = GptOssModel(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        self.lm_head = ParallelLMHead(
            self.args.vocab_size, self.args.hidden_size, prefix=maybe_prefix(prefix, "lm_head")
        )
        self.logits_processor = LogitsProcessor(self.args.vocab_size)
        self.make_empty_intermediate_tensors = self.model.make_empty_intermediate_tensors

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor | IntermediateTensors | tuple[torch.Tensor, list[torch.Tensor]]:
        """input_ids and positions [M]; returns hidden states [M, H]."""
        return self.model(input_ids, positions, intermediate_tensors, inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """hidden_states [M, H]; returns [M, vocabulary] on the rank that samples, else None."""
        return self.logits_processor(self.lm_head, hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Names and tensors of a checkpoint in the Hugging Face layout; returns the parameters filled."""
        return loader.load_weights(self, self.args, weights)
