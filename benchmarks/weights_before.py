"""How weights left the learner at 7f044fc: two fresh copies and the digests, all in the training thread. For comparison alone."""

from collections.abc import Iterable

import torch
import xxhash
from torch import Tensor

from learner.engine.policy_model import PolicyModel

ALIGNMENT_BYTES = 256


def snapshot(model: PolicyModel, dtype: torch.dtype) -> list[tuple[str, Tensor]]:
    """The first copy, without ZeRO stage 3."""
    weights = [(name, parameter.detach().to("cpu", dtype, copy=True)) for name, parameter in model.named_weights()]
    buffers = [(name, buffer.to("cpu", copy=True)) for name, buffer in model.named_buffers_kept()]
    return model.under_checkpoint_names([*weights, *buffers])


def pack(tensors: Iterable[tuple[str, Tensor]], bucket_mib: int) -> list[tuple[str, Tensor]]:
    """The second copy: (digest, bytes) of each bucket."""
    capacity = bucket_mib * 2**20
    packed: list[tuple[str, Tensor]] = []
    flat, used, filled = torch.empty(0, dtype=torch.uint8), 0, False

    def seal() -> None:
        if filled:
            content = flat[:used]
            packed.append((xxhash.xxh3_128_hexdigest(content.numpy().data), content))

    for _, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        offset = -(-used // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if not filled or offset + size > capacity:
            seal()
            flat, offset, filled = torch.empty(max(capacity, size), dtype=torch.uint8), 0, True
        else:
            flat[used:offset] = 0
        flat[offset : offset + size].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        used = offset + size
    seal()
    return packed
