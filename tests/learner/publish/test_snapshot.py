"""Where the buckets of a policy version lie, and that learner and channel agree about it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from learner.intake.ledger import Ledger
from learner.loop import TrainingLoop
from learner.publish.publisher import Snapshot, snapshot
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


def published(engine: BigramEngine, *overrides: str) -> list[Snapshot]:
    """What a loop over this engine publishes before its first step."""
    seen: list[Snapshot] = []
    config = load(ROOT / "examples/addition/addition.toml", overrides)
    nothing: Any = None
    publisher: Any = SimpleNamespace(publish=seen.append)
    TrainingLoop(
        config, Team(config, engine), publisher, nothing, nothing, Ledger(), nothing, None, (1, 2), lambda: False
    )._publish()
    return seen


def test_buckets_are_packed_where_they_are_told_to_be() -> None:
    weights = [("weight", torch.ones(3))]
    (packed,) = snapshot(0, weights, 1, (1, 2), [-1.0]).flat
    assert packed.device.type == "cpu"
    with pytest.raises(NotImplementedError, match="meta"):  # nothing is there to make a digest of
        snapshot(0, weights, 1, (1, 2), [-1.0], torch.device("meta"))


def test_over_gloo_weights_leave_from_the_cpu() -> None:
    (sent,) = published(BigramEngine())
    assert {flat.device.type for flat in sent.flat} == {"cpu"}


def test_over_nccl_weights_have_to_lie_on_a_gpu() -> None:
    nccl = "device=cuda", "weights.type=nccl"
    with pytest.raises(
        InputError, match=r'weights.type = "nccl" moves weights from GPU to GPU, and here they lie on cpu'
    ):
        published(BigramEngine(), *nccl)
    assert published(OnGpu(), *nccl)
