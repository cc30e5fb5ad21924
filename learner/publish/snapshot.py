"""Snapshots: one policy version in the buckets that it is sent from, with the probes by which replicas prove it."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from learner.publish.kept_buckets import BucketPool, KeptBuckets
from learner.ranks import Team
from services.config.weights import WeightsConfig
from services.errors import InputError
from services.weights.buckets import sealed
from services.weights.collective import bucket_device
from services.weights.side_stream import Mark, SideStream
from services.wire.weights import Bucket, Delta, Probe


@dataclass(frozen=True)
class Changes:
    """What goes out in the place of a version's buckets: None where a bucket goes out whole."""

    deltas: tuple[Delta | None, ...]
    encoded: tuple[Tensor | None, ...]
    """The bytes of each delta, on the device of the buckets."""

    @classmethod
    def nothing(cls, snapshot: "Snapshot") -> "Changes":
        """All of it goes out whole."""
        nothing = (None,) * len(snapshot.flat)
        return cls(nothing, nothing)


class Snapshot:
    """One policy version, copied. Made by the training loop's thread, used by the publisher's."""

    def __init__(
        self,
        policy_version: int,
        kept: KeptBuckets,
        filling: int,
        probes: Sequence[Probe],
        *,
        copied: Mark,
        side: SideStream,
    ) -> None:
        """filling: the number by which `kept` knows this version. copied: where the stream of a GPU has copied it. side: that of
        the publisher's thread, for digests."""
        self.policy_version = policy_version
        self.probes = tuple(probes)
        self._kept = kept
        self._filling = filling
        self._copied = copied
        self._side = side
        self._sealing = threading.Lock()
        self._buckets: tuple[Bucket, ...] | None = None
        self.changes: Changes | None = None
        """What the publisher sends in its place, once that is known; for any thread."""

    @property
    def flat(self) -> tuple[Tensor, ...]:
        """The bytes of each bucket: uint8, on the device they are sent from. To be read while it is held, after `sealed`."""
        return self._kept.flat

    def hold(self) -> bool:
        """Keep the version until `release`; False when a later one has taken its place in memory."""
        return self._kept.hold(self._filling)

    def release(self, *, arrived: bool) -> None:
        """End a `hold`. arrived: whether every replica has confirmed the version, so that the next may take its place."""
        self._kept.release(arrived=arrived)

    def sealed(self) -> tuple[Bucket, ...]:
        """The buckets with their digests, which are computed at the first call, in the thread that calls. To be called while it
        is held.

        Waits for: a GPU, to have copied the weights; a CPU has when the snapshot is made.
        Until: the copy is done; nobody else is awaited.
        Ended by: the last kernel before it, or an error of the GPU.
        Metric: ratchet_waiting{room="learner", awaiting="replicas to confirm"}.
        """
        with self._sealing:
            if self._buckets is None:
                self._copied.wait()
                self._buckets = sealed(self._kept.layout, [self._side.digest(flat) for flat in self.flat])
            return self._buckets

    def give_up(self) -> None:
        """Its buckets are not filled again: a transfer that nobody waits for may read them."""
        self._kept.give_up()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Inside, the buckets are sent. Where that fails, the backend may read them for longer than anybody waits: they are given
        up, and can still be sent."""
        try:
            yield
        except BaseException:
            self.give_up()
            raise


class Snapshots:
    """Takes snapshots of the learner's weights. On rank 0; taking one is work for every rank."""

    def __init__(self, team: Team, weights: WeightsConfig, probes: Sequence[tuple[int, ...]]) -> None:
        """probes: the sequences of tokens whose log-probs learner and replicas compare (`probe_tokens`).

        To be made while the team holds the weights on disk, before a checkpoint is loaded.
        """
        self._team = team
        self._weights = weights
        disk_logps = team.probe_logps(probes)
        self._probes = [Probe(tokens, (), tuple(logp)) for tokens, logp in zip(probes, disk_logps, strict=True)]
        self._pool: BucketPool | None = None
        self._side = SideStream(team.engine.device)

    def take(self, policy_version: int) -> Snapshot:
        """Copy the current weights, which are this policy version. Raises InputError when the backend cannot send them from
        where they lie, there is no memory for the copy, or the weights give no log-probs that are numbers."""
        if self._pool is None:
            self._pool = self._make_pool()
        kept, filling = self._pool.take()
        logps = self._team.snapshot([probe.token_ids for probe in self._probes], kept.named)
        probes = [Probe(p.token_ids, tuple(logp), p.disk_logp) for p, logp in zip(self._probes, logps, strict=True)]
        if not all(math.isfinite(one) for logp in logps for one in logp):
            raise InputError(_not_finite(policy_version, self._probes))
        copied = Mark(self._team.engine.device)
        return Snapshot(policy_version, kept, filling, probes, copied=copied, side=self._side)

    def _make_pool(self) -> BucketPool:
        here = self._team.engine.device
        device = bucket_device(self._weights.type, here)
        pinned = here.type == "cuda" and device.type == "cpu"
        return BucketPool(self._team.weight_shapes(), self._weights.bucket_mib, device, pinned=pinned)


def _not_finite(policy_version: int, probes: Sequence[Probe]) -> str:
    """What to say of weights whose log-probs are not numbers. The probes say whether the model on disk gave any."""
    said = "give log-probs that are not finite, so that nothing can be sampled with them"
    if not all(math.isfinite(one) for probe in probes for one in probe.disk_logp):
        return f"the model's weights {said}: its files hold them already. Check model.path, or take another copy of the model"
    return (
        f"the learner's weights after step {policy_version} {said}: the steps were too large. Lower "
        "learner.optimizer.learning_rate, and look at the gradient norm of the steps before in steps.jsonl"
    )


def probe_tokens(prompts: Sequence[Sequence[int]], length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two fixed sequences of real prompt tokens, at least two and at most `length` tokens each.

    The second follows the first in the prompts; where they do not reach that far, it is the first backwards.
    """
    tokens = [token for prompt in prompts for token in prompt]
    tokens = tokens if len(tokens) > 1 else tokens * 2
    first, second = tokens[:length], tokens[length : 2 * length]
    return tuple(first), tuple(second if len(second) == len(first) else first[::-1])
