"""The head's matrix products, with float32 results of bfloat16 operands.

Rounded to bfloat16, a logit of 20 is off by up to 0.06, and a log-prob by as much; a product of two bfloat16 numbers is exact in
float32. On CUDA one kernel does it. CPU kernels have no such product: lm_head is made float32 part by part.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

TILE_BYTES = 2**24
"""Memory of one part of lm_head in float32, on a CPU."""


def multiply(hidden: Tensor, weight: Tensor, out: Tensor) -> None:
    """out = hidden weight^T. hidden: [m, H]; weight: [V, H], same dtype; out: [m, V], of that dtype or float32."""
    if hidden.dtype == out.dtype:
        torch.mm(hidden, weight.t(), out=out)
    elif hidden.is_cuda:
        torch.mm(hidden, weight.t(), out_dtype=out.dtype, out=out)
    else:
        wide = hidden.to(out.dtype)
        for tile in _tiles(weight):
            torch.mm(wide, weight[tile].to(out.dtype).t(), out=out[:, tile])


def multiply_back(gradient: Tensor, weight: Tensor, out: Tensor) -> None:
    """out = gradient weight. gradient: [m, V], of weight's dtype or float32; weight: [V, H]; out: [m, H], of weight's dtype."""
    if gradient.dtype == weight.dtype:
        torch.mm(gradient, weight, out=out)
        return
    total = torch.zeros(out.shape, dtype=gradient.dtype, device=out.device)
    for tile in _tiles(weight):
        total.addmm_(gradient[:, tile], weight[tile].to(gradient.dtype))
    out.copy_(total)


def add_products(gradient: Tensor, hidden: Tensor, total: Tensor, *, first: bool) -> None:
    """total += gradient^T hidden; first: total = gradient^T hidden, whatever it was.

    gradient: [m, V]; hidden: [m, H]; total: [V, H], of the wider dtype of the two.
    """
    if gradient.dtype != hidden.dtype:
        hidden = hidden.to(gradient.dtype)
    if gradient.dtype == total.dtype:
        if first:
            torch.mm(gradient.t(), hidden, out=total)
        else:
            total.addmm_(gradient.t(), hidden)
    elif first:
        torch.mm(gradient.t(), hidden, out_dtype=total.dtype, out=total)
    elif adds_to_wider(gradient.device, gradient.dtype, total.dtype):
        torch.addmm(total, gradient.t(), hidden, out_dtype=total.dtype, out=total)
    else:
        total += torch.mm(gradient.t(), hidden, out_dtype=total.dtype)


def backward_dtype(hidden: Tensor, wide: torch.dtype) -> torch.dtype:
    """In which the gradient of the logits is multiplied: on a CPU as it is, on CUDA in the dtype of the model."""
    return hidden.dtype if hidden.is_cuda else wide


@cache
def adds_to_wider(device: torch.device, narrow: torch.dtype, wide: torch.dtype) -> bool:
    """Whether torch adds such a product to a wider matrix in place: earlier versions want the sum as narrow as the factors."""
    total = torch.zeros(16, 16, dtype=wide, device=device)
    factor = total.to(narrow)
    try:
        torch.addmm(total, factor, factor, out_dtype=wide, out=total)
    except RuntimeError:  # before anything is computed
        return False
    return True


def _tiles(weight: Tensor) -> Iterator[slice]:
    """Parts of the vocabulary that take TILE_BYTES in float32."""
    rows = max(1, TILE_BYTES // (4 * weight.shape[1]))
    for start in range(0, len(weight), rows):
        yield slice(start, min(start + rows, len(weight)))
