"""Weights from the card into kept buckets and their digests: what a snapshot costs the training thread, by the real path."""

import contextlib

import torch

from benchmarks.gpu.card import Card, case, row
from benchmarks.gpu.models import model_path
from learner.engine.outgoing import OutgoingWeights
from learner.engine.policy_model import PolicyModel
from learner.publish.kept_buckets import BucketPool
from services.config.model import ModelConfig
from services.weights import buckets
from services.weights.side_stream import Mark, SideStream


def weights(card: Card, names: str) -> None:
    """names: models that the step `models` has written, by comma. For each: buckets on the card, as over
    NCCL, and pinned ones, as over gloo."""
    for name in ("tiny",) if card.cpu else names.split(","):
        for device, pinned in ((card.device, False), (torch.device("cpu"), not card.cpu)):
            with case(f"{name} on {device.type}"):
                _one(card, name, device, pinned=pinned)


def _one(card: Card, name: str, device: torch.device, *, pinned: bool) -> None:
    """A first snapshot, which takes memory, and two into the same memory; the last is read by digests while a step runs."""
    model = _policy(card, name)
    outgoing = OutgoingWeights(model, lambda _: contextlib.nullcontext(), copies=True)
    pool = BucketPool(outgoing.shapes(torch.bfloat16), 1 if card.cpu else 256, device, pinned=pinned)
    side = SideStream(card.device)

    def copy() -> tuple[float, float]:
        """(seconds until the training thread goes on, seconds until the copy is there)."""
        kept, filling = pool.take()
        assert kept.hold(filling)

        def queue() -> Mark:
            outgoing.copy(kept.named)
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
        same=digests == plain
        and all(torch.equal(kept.named[name], weight.detach().to(device)) for name, weight in model.named_weights()),
    )


def _policy(card: Card, name: str) -> PolicyModel:
    settings = ModelConfig(path=model_path(card, name), max_length=32768, dtype="bfloat16")
    return PolicyModel(settings, head_chunk_tokens=512, gradient_checkpointing=False).to(card.device)
