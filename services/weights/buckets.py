"""Flat byte buckets: each holds whole parameters, travels in one collective, and has a digest that both ends compute.

Names, dtypes and shapes are the same in every version, so the places in the buckets are laid out once (`lay_out`), and each
version is copied into the same memory.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
import torch
import xxhash
from torch import Tensor

from services.errors import WeightSyncError
from services.wire.weights import Bucket, TensorEntry

ALIGNMENT_BYTES = 256
"""Enough for a view of any dtype, and fast for GPU copies."""


class Damaged(WeightSyncError):
    """What arrived is not what was sent."""


def lay_out(tensors: Iterable[tuple[str, Tensor]], bucket_mib: int) -> tuple[Bucket, ...]:
    """Places for named tensors in buckets of at most bucket_mib; a larger tensor gets a bucket of its own.

    tensors: their shapes and dtypes count, so they may be on the meta device. The digests are empty: `sealed` writes them.
    """
    capacity_bytes = bucket_mib * 2**20
    buckets: list[Bucket] = []
    entries: list[TensorEntry] = []
    used_bytes = 0

    def close() -> None:
        if entries:
            buckets.append(Bucket(used_bytes, "", tuple(entries)))
        entries.clear()

    for name, tensor in tensors:
        size_bytes = tensor.numel() * tensor.element_size()
        offset = -(-used_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if not entries or offset + size_bytes > capacity_bytes:
            close()
            offset = 0
        dtype = str(tensor.dtype).removeprefix("torch.")
        entries.append(TensorEntry(name, dtype, tuple(tensor.shape), offset))
        used_bytes = offset + size_bytes
    close()
    return tuple(buckets)


def allocate(buckets: Iterable[Bucket], device: torch.device, *, pinned: bool = False) -> list[Tensor]:
    """Memory for the bytes of these buckets, uint8, filled with zeros: the gaps between tensors are part of a digest.

    pinned: host memory that a GPU copies from and to by itself.
    """
    return [torch.zeros(bucket.size_bytes, dtype=torch.uint8, device=device, pin_memory=pinned) for bucket in buckets]


def sealed(buckets: Iterable[Bucket], digests: Iterable[str]) -> tuple[Bucket, ...]:
    """The buckets with their digests."""
    pairs = zip(buckets, digests, strict=True)
    return tuple(msgspec.structs.replace(bucket, digest=found) for bucket, found in pairs)


def pack(tensors: Sequence[tuple[str, Tensor]], bucket_mib: int) -> list[tuple[Bucket, Tensor]]:
    """Copies of named tensors, of any shape, dtype and stride, in new buckets on the CPU, with their digests."""
    layout = lay_out(tensors, bucket_mib)
    flats = allocate(layout, torch.device("cpu"))
    places = {name: place for bucket, flat in zip(layout, flats, strict=True) for name, place in unpack(bucket, flat)}
    for name, tensor in tensors:
        places[name].copy_(tensor.detach())
    return list(zip(sealed(layout, map(digest, flats)), flats, strict=True))


def unpack(bucket: Bucket, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Named views into `flat`, which must outlive them."""
    for entry in bucket.tensors:
        yield entry.name, _view(entry, flat)


def digest(flat: Tensor) -> str:
    """The xxh3-128 of the bytes of a uint8 tensor in host memory, in hexadecimal. Other threads run meanwhile."""
    return xxhash.xxh3_128_hexdigest(flat.numpy().data)


def check_digest(bucket: Bucket, received: str, position: str) -> None:
    """Raises Damaged when a bucket arrived with another digest than was announced. position: such as "3 of 7"."""
    if received != bucket.digest:
        raise Damaged(
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
