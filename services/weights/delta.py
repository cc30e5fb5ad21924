"""What changed in a bucket since another version of it, as bytes: the places of the changed values and the values.

Bits are compared, in units of the smallest dtype in the bucket, so that a NaN or a -0.0 comes out as it went in. A bucket is cut
into blocks, and each block takes the form in which it is smallest:

    gaps, 8 bits    1 byte a value and one more for every 255 units between two: up to one value in eight changed
    gaps, 16 bits   2 bytes a value: very few, far apart
    mask            a bit for every unit: more than one value in eight changed
    whole           the block itself: nearly all changed

    header   4 x int32, little-endian: format, bytes of a unit, units of a block, number of blocks
    table    3 x int32 for each block: form, entries of its places, number of its values
    bodies   the places, then the values, of each block in turn; each begins at a multiple of 8 bytes

The gap before a value is the number of unchanged units between the value before, or the block's beginning, and it. A gap at the
width's limit means that many unchanged units and no value. All of it is the same on a CPU and on a GPU.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from services.weights.buckets import Damaged
from services.wire.weights import WORTH_RATIO, Bucket

FORMAT = 1
BLOCK_UNITS = 1 << 20
"""Units of a block: large enough for kernels to be worth their start, and small enough for places of 8 bytes each in between."""
HEADER_INTS = 4
TABLE_INTS = 3
GAPS_8, GAPS_16, MASK, WHOLE = range(4)
LIMITS = {GAPS_8: 0xFF, GAPS_16: 0xFFFF}
"""The entry of a gap that means as many unchanged units and no value."""
UNIT_DTYPES = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
SAMPLED_ROW = 1024
SAMPLED_EVERY = 64
"""One row of that many units in each that many is compared first, to see whether the rest is worth it."""
SAMPLED_FROM = 16 * SAMPLED_ROW * SAMPLED_EVERY
"""Units of a bucket from which on a sample is taken: below, it would say too little."""
ALIGNMENT_BYTES = 8


def unit_bytes(bucket: Bucket) -> int:
    """The bytes of the smallest values in a bucket, 1 to 8: what is compared, counted and sent as one."""
    sizes = [getattr(torch, entry.dtype).itemsize for entry in bucket.tensors]
    return min([*sizes, max(UNIT_DTYPES)]) if sizes else 1


def encode(base: Tensor, now: Tensor, unit: int) -> Tensor | None:
    """What changed from `base` to `now`; None where that is more than WORTH_RATIO of the whole.

    base, now: uint8, of one size, on one device. unit: see `unit_bytes`. Returns uint8 on that device.
    """
    most_bytes = int(WORTH_RATIO * now.numel())
    old, new = base.view(UNIT_DTYPES[unit]), now.view(UNIT_DTYPES[unit])
    blocks = -(-new.numel() // BLOCK_UNITS)
    size = _padded(4 * (HEADER_INTS + TABLE_INTS * blocks))
    if size > most_bytes or not _seems_worth(old, new, unit, most_bytes):
        return None
    numbers = [FORMAT, unit, BLOCK_UNITS, blocks]
    pieces: list[Tensor] = []
    for first in range(0, new.numel(), BLOCK_UNITS):
        form, places, values = _block(old[first : first + BLOCK_UNITS], new[first : first + BLOCK_UNITS], unit)
        numbers += [form, places.numel(), values.numel()]
        for piece in (places, values):
            pieces.append(piece.view(torch.uint8))
            size += _padded(pieces[-1].numel())
        if size > most_bytes:
            return None
    encoded = torch.zeros(size, dtype=torch.uint8, device=now.device)
    head = torch.tensor(numbers, dtype=torch.int32).view(torch.uint8)
    for place, piece in zip(_starts([head, *pieces]), [head, *pieces], strict=True):
        encoded[place : place + piece.numel()] = piece
    return encoded


def apply(encoded: Tensor, flat: Tensor) -> None:
    """Make of the base version, in `flat`, the version that `encoded` was made for.

    Raises Damaged where `encoded` is not a delta for a bucket of this size; `flat` may then hold part of it. Whether it was
    the right base, the digest of the result says.
    """
    head = encoded[: 4 * HEADER_INTS]
    if head.numel() < 4 * HEADER_INTS:
        raise _unreadable("it has no header")
    form, unit, block_units, blocks = head.view(torch.int32).tolist()
    if form != FORMAT or unit not in UNIT_DTYPES or block_units != BLOCK_UNITS or flat.numel() % unit:
        raise _unreadable(f"its header is {form}, {unit}, {block_units}, {blocks}")
    target = flat.view(UNIT_DTYPES[unit])
    table_bytes = 4 * (HEADER_INTS + TABLE_INTS * blocks)
    if blocks != -(-target.numel() // BLOCK_UNITS) or encoded.numel() < _padded(table_bytes):
        raise _unreadable(f"it has {blocks} blocks for {target.numel()} values")
    table = encoded[4 * HEADER_INTS : table_bytes].view(torch.int32).tolist()
    offset = _padded(table_bytes)
    for number in range(blocks):
        form, entries, count = table[TABLE_INTS * number : TABLE_INTS * (number + 1)]
        places_bytes, values_bytes = entries * (2 if form == GAPS_16 else 1), count * unit
        values_at = offset + _padded(places_bytes)
        end = values_at + _padded(values_bytes)
        if entries < 0 or count < 0 or end > encoded.numel():
            raise _unreadable(f"block {number} ends at byte {end} of {encoded.numel()}")
        places = encoded[offset : offset + places_bytes]
        values = encoded[values_at : values_at + values_bytes].view(UNIT_DTYPES[unit])
        _put(target[number * BLOCK_UNITS : (number + 1) * BLOCK_UNITS], form, places, values)
        offset = end


def _block(old: Tensor, new: Tensor, unit: int) -> tuple[int, Tensor, Tensor]:
    """Form, places and values of what changed in a block."""
    is_changed = _differ(old, new)
    units, changed = new.numel(), _count(is_changed)
    mask_bytes = -(-units // 8)
    if changed > mask_bytes:  # gaps take a byte each at least
        if mask_bytes + changed * unit >= units * unit:
            return WHOLE, new[:0], new
        return MASK, _bits(is_changed), new[is_changed]
    index = _places(is_changed)
    gaps = index.diff(prepend=index.new_full((1,), -1)) - 1
    sizes = {form: (form + 1) * (changed + _skips(gaps, limit)) for form, limit in LIMITS.items()}
    form = min(sizes, key=lambda each: sizes[each])
    if sizes[form] > mask_bytes:
        return MASK, _bits(is_changed), new[index]
    return form, _entries(gaps, form), new[index]


def _skips(gaps: Tensor, limit: int) -> int:
    """How many entries without a value these gaps take."""
    return int((gaps[gaps >= limit] // limit).sum())


def _entries(gaps: Tensor, form: int) -> Tensor:
    """The gaps as they travel: uint8, or int16 whose bits are those of an unsigned number."""
    limit, dtype = LIMITS[form], torch.uint8 if form == GAPS_8 else torch.int16
    far = (gaps >= limit).nonzero().view(-1)
    if not far.numel():
        return gaps.to(dtype)
    skips = torch.zeros_like(gaps)
    skips[far] = gaps[far] // limit
    ends = torch.arange(gaps.numel(), device=gaps.device) + skips.cumsum(0)  # where the entry that has the value stands
    entries = torch.full((int(ends[-1]) + 1,), limit, device=gaps.device).to(dtype)
    entries[ends] = (gaps - skips * limit).to(dtype)
    return entries


def _put(target: Tensor, form: int, places: Tensor, values: Tensor) -> None:
    """Write the values of one block where they belong. Raises Damaged where they do not fit."""
    if form == WHOLE:
        if values.numel() != target.numel():
            raise _unreadable(f"a whole block has {values.numel()} of {target.numel()} values")
        target.copy_(values)
        return
    if form == MASK:
        is_changed = _from_bits(places)[: target.numel()]
        if is_changed.numel() != target.numel() or _count(is_changed) != values.numel():
            raise _unreadable("a mask has another size than its block, or its values")
        target.masked_scatter_(is_changed, values)
        return
    if form not in LIMITS:
        raise _unreadable(f"a block has form {form}")
    entries = places.to(torch.int64) if form == GAPS_8 else places.view(torch.int16).to(torch.int64) & 0xFFFF
    has_value = entries != LIMITS[form]
    index = entries.cumsum(0)[has_value]
    if index.numel() != values.numel():
        raise _unreadable(f"a block has {index.numel()} places and {values.numel()} values")
    if not index.numel():
        return
    index += torch.arange(index.numel(), device=index.device)
    if int(index[-1]) >= target.numel():
        raise _unreadable(f"a value belongs to unit {int(index[-1])} of {target.numel()}")
    target.scatter_(0, index, values)


def _seems_worth(old: Tensor, new: Tensor, unit: int, most_bytes: int) -> bool:
    """Whether a sample says that the delta is small enough. So what has changed all over costs little to find out."""
    if new.numel() < SAMPLED_FROM:
        return True
    rows = new.numel() // SAMPLED_ROW
    one, two = (each[: rows * SAMPLED_ROW].view(rows, SAMPLED_ROW)[::SAMPLED_EVERY] for each in (old, new))
    share = _count(_differ(one, two)) / one.numel()
    return new.numel() * (share * unit + min(share, 1 / 8)) <= 1.1 * most_bytes


def _differ(one: Tensor, two: Tensor) -> Tensor:
    """Where two tensors of whole numbers differ. On a CPU by numpy, which is eight times as fast as torch 2.11 here."""
    return one != two if one.is_cuda else torch.from_numpy(one.numpy() != two.numpy())


def _count(is_set: Tensor) -> int:
    """How many of these booleans are set; by numpy for the same reason."""
    return int(torch.count_nonzero(is_set)) if is_set.is_cuda else int(np.count_nonzero(is_set.numpy()))


def _places(is_set: Tensor) -> Tensor:
    """Which of these booleans are set, int64. Eight are looked at in one: few are."""
    ends = is_set.numel() // 8 * 8
    eights = is_set[:ends].view(torch.uint8).view(torch.int64)
    found = eights.nonzero().view(-1)
    place = eights[found].view(torch.uint8).nonzero().view(-1)
    rest = is_set[ends:].nonzero().view(-1) + ends
    return torch.cat((found[place >> 3] * 8 + (place & 7), rest))


def _bits(is_set: Tensor) -> Tensor:
    """A bit for each of these booleans, the first of eight the lowest of its byte: uint8."""
    eights = torch.nn.functional.pad(is_set.view(torch.uint8), (0, -is_set.numel() % 8)).view(torch.int64)
    # Eight bytes of 0 or 1: the product has the first in bit 56, the second in bit 57, and so on. It wraps as all of int64 does.
    return (((eights * 0x0102040810204080) >> 56) & 0xFF).to(torch.uint8)


def _from_bits(bits: Tensor) -> Tensor:
    """The booleans of `_bits`, a multiple of eight."""
    eights = (bits.to(torch.int64) * 0x0101010101010101) & (
        0x8040201008040201 - 2**64
    )  # in the first byte the first bit, ...
    return eights.view(torch.uint8) != 0


def _starts(pieces: list[Tensor]) -> Iterator[int]:
    """Where each piece begins."""
    at = 0
    for piece in pieces:
        yield at
        at += _padded(piece.numel())


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _unreadable(why: str) -> Damaged:
    return Damaged(f"what changed in a bucket cannot be read: {why}; run the same version of ratchet in every service")
