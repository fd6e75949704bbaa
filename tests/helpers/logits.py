"""Logits for the tests of the operators: dtypes, memory layouts, random and far-apart values."""

import torch

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LAYOUTS = ["contiguous", "batch first", "classes first", "every other class", "part of the classes"]


def score_dtype(logits):
    """The dtype in which the operators return scores of these logits."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def random_logits(*shape, seed=0, scale=1.0, device="cpu"):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(device)


def with_layout(logits, layout):
    """The same logits with other strides; the memory between and beside them holds NaN."""
    if layout == "batch first":
        return logits.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "classes first":
        return logits.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    if layout == "every other class":
        return torch.stack([logits, torch.full_like(logits, torch.nan)], -1)[..., 0]
    if layout == "part of the classes":
        return torch.nn.functional.pad(logits, (3, 2), value=torch.nan)[..., 3:-2]
    assert layout == "contiguous"
    return logits


def logits_beyond_32_bit_offsets(device):
    """(2, 1, 8) logits whose frames lie 2^31 elements apart; the memory between them is never touched."""
    logits = torch.empty(2**31 + 8, dtype=torch.float16, device=device).as_strided((2, 1, 8), (2**31, 8, 1))
    return logits.copy_(torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0)))
