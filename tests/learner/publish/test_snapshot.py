"""What a snapshot holds, where its buckets lie, and that learner and channel agree about it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from learner.publish.snapshot import Snapshot, Snapshots, pack_snapshot, probe_tokens
from learner.ranks import Team
from services.config.load import load
from services.errors import InputError
from tests.fakes.train_engine import BigramEngine

ROOT = Path(__file__).parents[3]


class OnGpu(BigramEngine):
    device = torch.device("cuda", 3)

    def snapshot(self, dtype: torch.dtype) -> list[tuple[str, torch.Tensor]]:
        return []

    def sequence_logp(self, token_ids: Any) -> list[float]:
        return []


def taken(engine: BigramEngine, *overrides: str) -> Snapshot:
    """What a learner over this engine publishes."""
    config = load(ROOT / "examples/addition/addition.toml", overrides)
    return Snapshots(Team(config, engine), config.weights, (1, 2)).take(5)


def test_buckets_are_packed_where_they_are_told_to_be() -> None:
    weights = [("weight", torch.ones(3))]

    def packed(device: torch.device | None = None) -> Snapshot:
        return pack_snapshot(0, weights, bucket_mib=1, probe_token_ids=(1, 2), probe_logp=[-1.0], device=device)

    assert {flat.device.type for flat in packed().flat} == {"cpu"}
    with pytest.raises(NotImplementedError, match="meta"):  # nothing is there to make a digest of
        packed(torch.device("meta"))


def test_over_gloo_weights_leave_from_the_cpu() -> None:
    sent = taken(BigramEngine())
    assert {flat.device.type for flat in sent.flat} == {"cpu"}


def test_a_snapshot_is_the_weights_of_its_version_in_the_dtype_they_travel_in_with_a_probe_of_them() -> None:
    engine = BigramEngine()
    for dtype in ("float32", "bfloat16"):
        sent = taken(engine, f"model.dtype={dtype}")
        (bucket,) = sent.buckets
        assert (sent.policy_version, bucket.tensors[0].name, bucket.tensors[0].dtype) == (5, "bigram", dtype)
        assert sent.probe_token_ids == (1, 2)
        assert list(sent.probe_logp) == list(sent.disk_logp) == engine.sequence_logp((1, 2))


def test_a_snapshot_says_what_the_probe_was_under_the_weights_on_disk() -> None:
    engine, config = BigramEngine(), load(ROOT / "examples/addition/addition.toml", ())
    on_disk = engine.sequence_logp((1, 2))
    snapshots = Snapshots(Team(config, engine), config.weights, (1, 2))
    engine.logits += torch.randn_like(engine.logits)  # a checkpoint is loaded, or steps are taken
    sent = snapshots.take(5)
    assert list(sent.disk_logp) == on_disk != list(sent.probe_logp)


def test_the_probe_is_the_beginning_of_the_prompts_and_never_a_single_token() -> None:
    assert probe_tokens([[1, 2], [3], [4, 5]], 4) == (1, 2, 3, 4)
    assert probe_tokens([[7]], 4) == (7, 7)


def test_over_nccl_weights_have_to_lie_on_a_gpu() -> None:
    nccl = "device=cuda", "weights.type=nccl"
    with pytest.raises(
        InputError, match=r'weights.type = "nccl" moves weights from GPU to GPU, and here they lie on cpu'
    ):
        taken(BigramEngine(), *nccl)
    assert taken(OnGpu(), *nccl).policy_version == 5
