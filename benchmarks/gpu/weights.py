"""Weights from the card into kept buckets and their digests: what a snapshot costs the training thread, by the real path."""

import torch
from torch import Tensor

from benchmarks.gpu.card import Card, case, row
from benchmarks.gpu.models import SHAPES, vocabulary
from learner.publish.kept_buckets import BucketPool
from services.weights import buckets
from services.weights.side_stream import Mark, SideStream


def weights(card: Card, names: str) -> None:
    """names: models of models.SHAPES, by comma. For each: over NCCL (buckets on the card) and over gloo (pinned buckets)."""
    for name in ("tiny",) if card.cpu else names.split(","):
        for device, pinned in ((card.device, False), (torch.device("cpu"), not card.cpu)):
            with case(f"{name} on {device.type}"):
                _one(card, name, device, pinned=pinned)


def _one(card: Card, name: str, device: torch.device, *, pinned: bool) -> None:
    """A first snapshot, which takes memory, and two into the same memory; the last is read by digests while a step runs."""
    tensors = _parameters(card, name)
    shapes = [(n, torch.empty_like(tensor, device="meta")) for n, tensor in tensors]
    pool = BucketPool(shapes, 1 if card.cpu else 256, device, pinned=pinned)
    side = SideStream(card.device)

    def copy() -> tuple[float, float]:
        """(seconds until the training thread goes on, seconds until the copy is there)."""
        kept, filling = pool.take()
        assert kept.hold(filling)

        def queue() -> Mark:
            for n, tensor in tensors:
                kept.named[n].copy_(tensor, non_blocking=True)
            return Mark(card.device)

        mark, thread_s = card.clocked(queue)
        _, done_s = card.clocked(mark.wait)
        kept.release(arrived=True)
        return thread_s, thread_s + done_s

    _, first_s = card.clocked(copy)
    times = [copy() for _ in range(2)]
    kept, _ = pool.take()
    digests, digest_s = card.clocked(lambda: [side.digest(flat) for flat in kept.flat])
    plain, pageable_s = card.clocked(lambda: [buckets.digest(flat.cpu()) for flat in kept.flat])
    gib = sum(flat.numel() for flat in kept.flat) / 2**30
    row(
        f"{name}, buckets {'pinned' if pinned else 'on ' + device.type}",
        gib=gib,
        first_s=first_s,
        training_thread_s=min(t for t, _ in times),
        copied_s=min(t for _, t in times),
        digest_s=digest_s,
        pageable_digest_s=pageable_s,
        same=digests == plain and _as_packed(tensors, kept.named),
    )


def _parameters(card: Card, name: str) -> list[tuple[str, Tensor]]:
    """Tensors with the shapes of that model's parameters, in bfloat16."""
    shape = SHAPES[name]
    hidden, inner, layers = (shape[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    key_values = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    sizes = [("embed", (vocabulary(card), hidden))]
    for layer in range(layers):
        sizes += [(f"{layer}.{part}", (hidden, hidden)) for part in ("q", "o")]
        sizes += [(f"{layer}.{part}", (key_values, hidden)) for part in ("k", "v")]
        sizes += [(f"{layer}.{part}", (inner, hidden)) for part in ("gate", "up")]
        sizes += [(f"{layer}.down", (hidden, inner)), (f"{layer}.norm", (hidden, 1))]
    return [(part, torch.randn(size, device=card.device, dtype=torch.bfloat16)) for part, size in sizes]


def _as_packed(tensors: list[tuple[str, Tensor]], named: dict[str, Tensor]) -> bool:
    return all(torch.equal(named[name].to(tensor.device), tensor) for name, tensor in tensors)
