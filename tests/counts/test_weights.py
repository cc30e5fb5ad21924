"""How many bytes a version costs: those of the weights, once, however many replicas take them."""

import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from services.clock import Deadline
from services.config.load import load
from services.streams.redis_connection import RedisConnection
from services.weights.buckets import ALIGNMENT_BYTES, lay_out
from services.wire.weights import WeightManifest
from tests.learner.publish import control_plane
from tests.learner.publish.control_plane import CountingChannel, Learner, Replica, until

ROOT = Path(__file__).parents[2]


class ByteChannel(CountingChannel):
    """Notes what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[int] = []

    def send(self, manifest: WeightManifest, flat_buckets: Sequence[Tensor], deadline: Deadline) -> None:
        self.bytes.append(sum(flat.numel() * flat.element_size() for flat in flat_buckets))
        super().send(manifest, flat_buckets, deadline)


def is_reported(learner: Learner, version: int) -> bool:
    return len(learner.reports) > version


def test_a_sync_sends_the_bytes_of_the_weights_once_for_all_replicas(
    redis_connection: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_plane, "CountingChannel", ByteChannel)
    config = load(ROOT / "examples/addition/addition.toml", [f"name=counts-{uuid.uuid4().hex[:8]}"])
    replicas = [Replica(config, redis_connection, f"rollout-{number}") for number in range(2)]
    learner = Learner(config, redis_connection)
    try:
        until(lambda: all(replica.follower is not None for replica in replicas), 20)
        for version in range(3):
            learner.publish(version)
            until(partial(is_reported, learner, version), 20)
        until(lambda: all(replica.engine.policy_version == 2 for replica in replicas), 20)
    finally:
        learner.publisher.close()
        for replica in replicas:
            replica.leave()
    assert isinstance(learner.channel, ByteChannel)
    assert learner.channel.bytes == [3 * 4] * 3  # three float32


def test_nothing_but_gaps_that_align_comes_to_the_bytes_of_the_weights() -> None:
    shapes = [
        (f"weight {number}", torch.empty(1000 + number, dtype=torch.bfloat16, device="meta")) for number in range(9)
    ]
    weights = sum(tensor.numel() * tensor.element_size() for _, tensor in shapes)
    (bucket,) = lay_out(shapes, 64)
    assert weights == 18_072
    assert bucket.size_bytes == 18_400  # eight gaps of 48 bytes and less
    assert bucket.size_bytes - weights < 8 * ALIGNMENT_BYTES
