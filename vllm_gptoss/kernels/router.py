"""Choice of experts: the K largest logits of a token, and a softmax over those K only.

    ids = argtop_K(logits);  weights = softmax(logits[ids])

Layout: logits [M, E]; weights and ids [M, K], largest first. Of equal logits the lower expert comes first.

Source: the gpt-oss model card, arXiv 2508.10925, section 2.2.
"""

import torch


def router_ref(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`weights` [M, K] in the dtype of `logits` [M, E], from a softmax in fp32, and `ids` int64 [M, K]."""
    # torch.topk leaves the order of equal values open, and bf16 logits are often equal.
    values, ids = logits.sort(dim=-1, descending=True, stable=True)
    weights = values[:, :top_k].softmax(dim=-1, dtype=torch.float32)
    return weights.to(logits.dtype), ids[:, :top_k].contiguous()
