"""The tensors of a Hugging Face gpt-oss checkpoint: names, shapes and places in our model.

`TABLE` is the only place that knows the names of the checkpoint.

Source: the published checkpoints of gpt-oss-20b and gpt-oss-120b.
"""

from dataclasses import dataclass
from itertools import groupby, product

from vllm_gptoss.model.config import MXFP4_BLOCK, ModelArgs

FLOAT = frozenset({"BF16", "F16", "F32"})
BYTE = frozenset({"U8"})
ALL, MXFP4, BF16 = ("mxfp4", "bf16"), ("mxfp4",), ("bf16",)
LAYER = "model.layers.N."
ATTN = LAYER + "self_attn."
EXPERTS = LAYER + "mlp.experts."
OURS = EXPERTS + "routed_experts."
SAME = ""

# Sizes: V vocabulary, H hidden, I intermediate, E experts, Q query heads, QD and KD query and key heads times
# head_dim. Columns: weight formats, tensor of the checkpoint, its shape, its dtypes, our parameter, shard.
TABLE = (
    (ALL, "model.embed_tokens.weight", "V H", FLOAT, SAME, None),
    (ALL, LAYER + "input_layernorm.weight", "H", FLOAT, SAME, None),
    (ALL, ATTN + "q_proj.weight", "QD H", FLOAT, ATTN + "qkv_proj.weight", "q"),
    (ALL, ATTN + "q_proj.bias", "QD", FLOAT, ATTN + "qkv_proj.bias", "q"),
    (ALL, ATTN + "k_proj.weight", "KD H", FLOAT, ATTN + "qkv_proj.weight", "k"),
    (ALL, ATTN + "k_proj.bias", "KD", FLOAT, ATTN + "qkv_proj.bias", "k"),
    (ALL, ATTN + "v_proj.weight", "KD H", FLOAT, ATTN + "qkv_proj.weight", "v"),
    (ALL, ATTN + "v_proj.bias", "KD", FLOAT, ATTN + "qkv_proj.bias", "v"),
    (ALL, ATTN + "sinks", "Q", FLOAT, SAME, None),
    (ALL, ATTN + "o_proj.weight", "H QD", FLOAT, SAME, None),
    (ALL, ATTN + "o_proj.bias", "H", FLOAT, SAME, None),
    (ALL, LAYER + "post_attention_layernorm.weight", "H", FLOAT, SAME, None),
    (ALL, LAYER + "mlp.router.weight", "E H", FLOAT, SAME, None),
    (ALL, LAYER + "mlp.router.bias", "E", FLOAT, SAME, None),
    (MXFP4, EXPERTS + "gate_up_proj_blocks", "E 2I H/32 16", BYTE, OURS + "w13_weight", None),
    (MXFP4, EXPERTS + "gate_up_proj_scales", "E 2I H/32", BYTE, OURS + "w13_weight_scale", None),
    (BF16, EXPERTS + "gate_up_proj", "E H 2I", FLOAT, OURS + "w13_weight", None),
    (ALL, EXPERTS + "gate_up_proj_bias", "E 2I", FLOAT, OURS + "w13_bias", None),
    (MXFP4, EXPERTS + "down_proj_blocks", "E H I/32 16", BYTE, OURS + "w2_weight", None),
    (MXFP4, EXPERTS + "down_proj_scales", "E H I/32", BYTE, OURS + "w2_weight_scale", None),
    (BF16, EXPERTS + "down_proj", "E I H", FLOAT, OURS + "w2_weight", None),
    (ALL, EXPERTS + "down_proj_bias", "E H", FLOAT, OURS + "w2_bias", None),
    (ALL, "model.norm.weight", "H", FLOAT, SAME, None),
    (ALL, "lm_head.weight", "V H", FLOAT, SAME, None),
)


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the checkpoint and the parameter that it fills."""

    name: str
    shape: tuple[int, ...]
    dtypes: frozenset[str]
    """As safetensors calls them: U8, BF16, F16, F32."""
    parameter: str
    shard: str | None
    """Part of a stacked parameter: "q", "k" or "v"."""
    transposed: bool
    """The file holds `[E, in, out]` and the parameter `[E, out, in]`: experts of bf16 checkpoints."""


def expected_tensors(args: ModelArgs) -> dict[str, TensorSpec]:
    """Every tensor of the checkpoint by name, in the order of the model."""
    sizes = {
        "V": args.vocab_size,
        "H": args.hidden_size,
        "I": args.intermediate_size,
        "2I": 2 * args.intermediate_size,
        "H/32": args.hidden_size // MXFP4_BLOCK,
        "I/32": args.intermediate_size // MXFP4_BLOCK,
        "16": MXFP4_BLOCK // 2,
        "E": args.num_experts,
        "Q": args.num_heads,
        "QD": args.num_heads * args.head_dim,
        "KD": args.num_kv_heads * args.head_dim,
    }
    rows = [row for row in TABLE if args.weight_format in row[0]]
    specs = {}
    for in_layers, group in groupby(rows, key=lambda row: row[1].startswith(LAYER)):
        for layer, row in product(range(args.num_layers if in_layers else 1), group):
            formats, template, shape, dtypes, parameter, shard = row
            name = template.replace(".N.", f".{layer}.")
            parameter = (parameter or template).replace(".N.", f".{layer}.")
            dims = tuple(sizes[size] for size in shape.split())
            specs[name] = TensorSpec(name, dims, dtypes, parameter, shard, transposed=formats == BF16)
    return specs
