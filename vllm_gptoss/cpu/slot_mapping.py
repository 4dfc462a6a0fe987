"""Where each token's key and value go: its block times the block size plus its place in the block.

The torch version of a Triton kernel of vLLM. Its parameters carry that kernel's names, by which vLLM
passes them on.
"""

import torch


def compute_slot_mapping(
    num_tokens: int,
    max_num_tokens: int,
    query_start_loc_ptr: torch.Tensor,
    positions_ptr: torch.Tensor,
    block_table_ptr: torch.Tensor,
    block_table_stride: int,
    slot_mapping_ptr: torch.Tensor,
    KV_CACHE_BLOCK_SIZE: int,  # noqa: N803
    TOTAL_CP_WORLD_SIZE: int,  # noqa: N803
    TOTAL_CP_RANK: int,  # noqa: N803
    CP_KV_CACHE_INTERLEAVE_SIZE: int,  # noqa: N803
    PAD_ID: int,  # noqa: N803
    BLOCK_SIZE: int,  # noqa: N803
) -> None:
    """query_start_loc [R + 1], positions [tokens], block_table [R, blocks]; fills slot_mapping [max tokens].

    Raises: NotImplementedError for context parallelism, which spreads a block over ranks.
    """
    if TOTAL_CP_WORLD_SIZE > 1:
        raise NotImplementedError("context parallelism needs an accelerator")
    starts = query_start_loc_ptr.long()
    tokens = int(starts[-1])
    requests = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff(), output_size=tokens)
    positions = positions_ptr[:tokens]
    blocks = block_table_ptr[requests, positions // KV_CACHE_BLOCK_SIZE].long()
    slot_mapping_ptr[:tokens] = blocks * KV_CACHE_BLOCK_SIZE + positions % KV_CACHE_BLOCK_SIZE
    slot_mapping_ptr[tokens:max_num_tokens] = PAD_ID
