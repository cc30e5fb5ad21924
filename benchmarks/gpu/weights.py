"""Weights from the card into buckets on it, with digests: today's way against one pinned buffer."""

import torch
import xxhash
from torch import Tensor

from benchmarks.gpu.card import Card, row
from services.weights import buckets


def weights(card: Card, _: str) -> None:
    """3 GB of bfloat16 parameters, as in 1.5B of them."""
    count, shape = (4, (64, 16)) if card.cpu else (112, (1536, 8960))
    tensors = [(f"p{i}", torch.randn(shape, device=card.device, dtype=torch.bfloat16)) for i in range(count)]
    gb, mib = sum(tensor.numel() * 2 for _, tensor in tensors) / 1e9, 1 if card.cpu else 256
    to = None if card.cpu else card.device
    snapshot, snapshot_s = card.timed(
        lambda: [(name, tensor.to("cpu", torch.bfloat16, copy=True)) for name, tensor in tensors], 2
    )
    today, pack_s = card.timed(lambda: buckets.pack(snapshot, mib, to), 2)
    row("today", gb=gb, snapshot_s=snapshot_s, pack_and_digest_s=pack_s, total_s=snapshot_s + pack_s)
    flats = [flat for _, flat in today]
    pageable, pageable_s = card.timed(lambda: [buckets.digest(flat) for flat in flats])
    pinned = torch.empty(max(flat.numel() for flat in flats), dtype=torch.uint8, pin_memory=not card.cpu)

    def pinned_digest(flat: Tensor) -> str:
        view = pinned[: flat.numel()]
        view.copy_(flat, non_blocking=True)
        card.wait()
        return xxhash.xxh3_128_hexdigest(view.numpy().data)

    found, pinned_s = card.timed(lambda: [pinned_digest(flat) for flat in flats], 2)
    row("digest alone", pageable_s=pageable_s, pinned_s=pinned_s, same=found == pageable)
