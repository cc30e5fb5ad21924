"""Snapshots: one policy version packed for the wire, with the probe by which replicas prove that they hold it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.ranks import Team
from services.config.weights import WeightsConfig
from services.weights.buckets import pack
from services.weights.process_group import bucket_device
from services.wire.weights import Bucket


@dataclass(frozen=True)
class Snapshot:
    """One policy version, packed for the wire."""

    policy_version: int
    buckets: tuple[Bucket, ...]
    flat: tuple[Tensor, ...]
    """The bytes of each bucket: uint8, on the device they are sent from."""
    probe_token_ids: tuple[int, ...]
    probe_logp: tuple[float, ...]
    """Log-probs of the probe's tokens after the first, nats, under exactly these weights."""
    disk_logp: tuple[float, ...] = ()
    """The same under the weights on disk that the run was started with; empty where they are not known."""


class Snapshots:
    """Takes snapshots of the learner's weights. On rank 0; taking one is work for every rank."""

    def __init__(self, team: Team, weights: WeightsConfig, probe: tuple[int, ...]) -> None:
        """probe: the tokens whose log-probs learner and replicas compare (`probe_tokens`).

        To be made while the team holds the weights on disk, before a checkpoint is loaded.
        """
        self._team = team
        self._weights = weights
        self._probe = probe
        self._disk_logp = team.probe_logp(probe)

    def take(self, policy_version: int) -> Snapshot:
        """Copy the current weights, which are this policy version. Raises InputError when the backend cannot send them from
        where they lie."""
        taken = self._team.snapshot(self._probe)
        device = bucket_device(self._weights.type, self._team.engine.device)
        return pack_snapshot(
            policy_version,
            taken.tensors,
            bucket_mib=self._weights.bucket_mib,
            probe_token_ids=self._probe,
            probe_logp=taken.probe_logp,
            disk_logp=self._disk_logp,
            device=device,
        )


def pack_snapshot(
    policy_version: int,
    tensors: Sequence[tuple[str, Tensor]],
    *,
    bucket_mib: int,
    probe_token_ids: Sequence[int],
    probe_logp: Sequence[float],
    disk_logp: Sequence[float] = (),
    device: torch.device | None = None,
) -> Snapshot:
    """Pack named tensors into buckets of at most bucket_mib MiB. device: where the buckets lie; None is the CPU."""
    packed = pack(tensors, bucket_mib, device)
    return Snapshot(
        policy_version=policy_version,
        buckets=tuple(bucket for bucket, _ in packed),
        flat=tuple(flat for _, flat in packed),
        probe_token_ids=tuple(probe_token_ids),
        probe_logp=tuple(probe_logp),
        disk_logp=tuple(disk_logp),
    )


def probe_tokens(prompts: Sequence[Sequence[int]], length: int) -> tuple[int, ...]:
    """A fixed sequence of real prompt tokens, at least two and at most `length` of them."""
    tokens = [token for prompt in prompts for token in prompt][:length]
    return tuple(tokens if len(tokens) > 1 else tokens * 2)
