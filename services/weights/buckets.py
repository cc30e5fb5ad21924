"""Flat byte buckets: each holds whole parameters, travels in one collective, and has a digest that both ends compute."""

from collections.abc import Iterable, Iterator

import torch
import xxhash
from torch import Tensor

from services.errors import WeightSyncError
from services.wire.weights import Bucket, TensorEntry

ALIGNMENT_BYTES = 256
"""Enough for a view of any dtype, and fast for GPU copies."""


def pack(
    tensors: Iterable[tuple[str, Tensor]], bucket_mib: int, device: torch.device | None = None
) -> list[tuple[Bucket, Tensor]]:
    """Copy named parameters into uint8 buckets of at most bucket_mib; a larger parameter gets a bucket of its own.

    Each tensor is copied before the next is asked for: under ZeRO-3 it is a view that becomes invalid after its gather.
    Tensors may have any shape, dtype and stride. device: where the buckets lie, by default the CPU.
    """
    capacity_bytes = bucket_mib * 2**20
    packed: list[tuple[Bucket, Tensor]] = []
    entries: list[TensorEntry] = []
    flat, used_bytes = torch.empty(0, dtype=torch.uint8), 0

    def seal() -> None:
        nonlocal entries
        if entries:
            content = flat[:used_bytes]
            packed.append((Bucket(used_bytes, digest(content), tuple(entries)), content))
        entries = []

    for name, tensor in tensors:
        size_bytes = tensor.numel() * tensor.element_size()
        offset = -(-used_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if not entries or offset + size_bytes > capacity_bytes:
            seal()
            flat, offset = torch.empty(max(capacity_bytes, size_bytes), dtype=torch.uint8, device=device), 0
        else:
            flat[used_bytes:offset] = 0  # the gap is part of the digest
        dtype = str(tensor.dtype).removeprefix("torch.")
        entry = TensorEntry(name, dtype, tuple(tensor.shape), offset)
        _view(entry, flat).copy_(tensor.detach())
        entries.append(entry)
        used_bytes = offset + size_bytes
    seal()
    return packed


def unpack(bucket: Bucket, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Named views into `flat`, which must outlive them."""
    for entry in bucket.tensors:
        yield entry.name, _view(entry, flat)


def digest(flat: Tensor) -> str:
    """The xxh3-128 of a uint8 tensor's bytes, in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(flat.cpu().numpy().data)


def verify(bucket: Bucket, flat: Tensor, position: str) -> None:
    """Raises WeightSyncError when `flat` does not hold the bytes that were announced. position: for example "3 of 7"."""
    received = digest(flat)
    if received != bucket.digest:
        raise WeightSyncError(
            f"bucket {position} ({bucket.size_bytes} bytes, first parameter {_first(bucket)}) arrived with digest "
            f"{received}, announced was {bucket.digest}. The weights held before stay in use; the learner sends again "
            "in the next generation. If it happens twice, suspect the network or memory of this host."
        )


def _view(entry: TensorEntry, flat: Tensor) -> Tensor:
    dtype = getattr(torch, entry.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise WeightSyncError(
            f'parameter {entry.name} is announced as "{entry.dtype}", which this version of torch does not have; '
            "run the same version of ratchet in every service"
        )
    size_bytes = dtype.itemsize
    for length in entry.shape:
        size_bytes *= length
    if entry.offset + size_bytes > flat.numel():
        raise WeightSyncError(
            f"parameter {entry.name} is announced at bytes {entry.offset}..{entry.offset + size_bytes} of a bucket of "
            f"{flat.numel()}; run the same version of ratchet in every service"
        )
    return flat[entry.offset : entry.offset + size_bytes].view(dtype).view(entry.shape)


def _first(bucket: Bucket) -> str:
    return bucket.tensors[0].name if bucket.tensors else "none"
