"""MXFP4: four-bit values that share one power-of-two scale per block of 32.

    w[..., n] = FP4_VALUES[code[..., n]] * 2 ** (scales[..., n // 32] - 127)

Layout: `blocks` u8 [..., N/2], the low nibble is the even index and the high nibble the odd one; bit 3 of a
code is its sign. `scales` u8 [..., N/32], one byte a block along the last dimension; 255 makes its block NaN.
Checkpoints store blocks as [..., N/32, 16]: the same bytes, flattened by the caller.

Source: OCP Microscaling Formats (MX) v1.0, sections 5.3.3 (FP4 E2M1) and 5.4.1 (E8M0), 6.3 (conversion).
"""

import math

import torch

BLOCK = 32
"""Values that share one scale (OCP MX v1.0, table 1)."""

FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""The value of each four-bit code."""

_SCALE_BIAS = 127

_SCALE_VALUES = (*(math.ldexp(1.0, byte - _SCALE_BIAS) for byte in range(255)), math.nan)
"""The factor of each scale byte. 2**-127, byte 0, is a subnormal that fp32 and bf16 both hold exactly."""

_LARGEST_EXPONENT = 2
"""Exponent of 6.0, the largest FP4 value."""

_MIDPOINTS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
"""Between neighbouring magnitudes; the one at odd index i rounds up, to the even code i + 1."""

# Both values of a byte are moved as one word.
_PAIR_WORD = {torch.bfloat16: torch.int32, torch.float32: torch.int64}


def mxfp4_decode_ref(blocks: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Values of `blocks` u8 [..., N/2] and `scales` u8 [..., N/32] as [..., N], contiguous.

    Exact wherever `dtype` holds the value, subnormals included; a larger value is an infinity. Any strides.

    Raises: ValueError for shapes that do not belong together or a dtype other than bf16 and fp32.
    """
    if blocks.shape != (*scales.shape[:-1], scales.shape[-1] * BLOCK // 2):
        raise ValueError(f"blocks {tuple(blocks.shape)} do not fit scales {tuple(scales.shape)}")
    if (word := _PAIR_WORD.get(dtype)) is None:
        raise ValueError(f"MXFP4 decodes to bfloat16 or float32, not {dtype}")
    device = blocks.device
    values = torch.tensor(FP4_VALUES, dtype=dtype, device=device)
    # Row = high nibble, column = low nibble, so that the flat index is the byte.
    pairs = torch.stack((values.expand(16, 16), values[:, None].expand(16, 16)), dim=-1)  # [16, 16, 2]
    words = pairs.view(word).flatten()  # [256]
    factors = torch.tensor(_SCALE_VALUES, dtype=dtype, device=device).index_select(0, scales.flatten().int())
    out = words.index_select(0, blocks.flatten().int()).view(dtype)
    out.view(-1, BLOCK).mul_(factors[:, None])
    return out.view(*scales.shape[:-1], scales.shape[-1] * BLOCK)


def mxfp4_encode_ref(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest MXFP4 of `weights` [..., N]: `blocks` u8 [..., N/2] and `scales` u8 [..., N/32].

    The scale of a block is 2 ** (floor(log2(amax)) - 2), and 1 where the block is zero. Values round to the
    nearest code, ties to the even one, and saturate at 6 times the scale. The sign of a zero is kept.

    Raises: ValueError for an N that 32 does not divide, or values that are not finite in fp32.
    """
    if weights.shape[-1] % BLOCK:
        raise ValueError(f"last dimension {weights.shape[-1]} does not divide by {BLOCK}")
    values = weights.float().unflatten(-1, (-1, BLOCK))  # [..., N/32, 32]
    amax = values.abs().amax(dim=-1)
    if not amax.isfinite().all():
        raise ValueError("MXFP4 cannot encode infinite or NaN weights")
    # frexp has its mantissa in [0.5, 1): its exponent is floor(log2) + 1.
    exponent = torch.frexp(amax).exponent - 1 - _LARGEST_EXPONENT
    scales = (exponent + _SCALE_BIAS).clamp(0, 254).masked_fill_(amax == 0, _SCALE_BIAS)
    inverse = torch.tensor(_SCALE_VALUES, dtype=torch.float64, device=weights.device).reciprocal()
    factors = inverse.float().index_select(0, scales.flatten()).view_as(amax)
    magnitude = (values * factors[..., None]).abs_()
    # bucketize counts the bounds that lie strictly below.
    bounds = torch.tensor(_MIDPOINTS, device=weights.device)
    bounds[1::2] = bounds[1::2].nextafter(torch.zeros(3, device=weights.device))
    codes = torch.bucketize(magnitude, bounds, out_int32=True).to(torch.uint8)
    codes |= values.signbit().to(torch.uint8) << 3
    codes = codes.flatten(-2)
    return codes[..., 0::2] | codes[..., 1::2] << 4, scales.to(torch.uint8)
