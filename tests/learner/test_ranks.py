"""What rank 0 has done to the reference, every rank does."""

from pathlib import Path
from unittest import mock

import pytest

from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.ranks import Team
from services.config.learner import LearnerConfig
from services.config.load import load
from services.config.model import ModelConfig
from services.entry import end
from tests.fakes.train_engine import BigramEngine
from tests.learner.ranks import run_ranks
from tests.learner.tiny import write_tiny_model

ROOT = Path(__file__).parents[2]


class Recording(BigramEngine):
    """One of two ranks: what rank 0 sends waits in `sent`."""

    world_size = 2

    def __init__(self, rank: int, sent: list[bytes]) -> None:
        super().__init__()
        self.rank, self.sent = rank, sent

    def broadcast_bytes(self, payload: bytes | None) -> bytes:
        if payload is None:
            return self.sent.pop(0)
        self.sent.append(payload)
        return payload

    def ratchet_reference(self) -> None:
        self.calls.append("ratchet")

    def roll_back_reference(self) -> None:
        self.calls.append("roll back")


class DiskFull(Recording):
    def save(self, folder: Path) -> None:
        raise OSError("no space left on device")


def test_after_a_failure_in_the_midst_of_an_order_nobody_is_told_to_finish() -> None:
    """The others wait in a collective: a word to them would wait as well, until the deadline of collectives."""
    config, sent = load(ROOT / "examples/addition/addition.toml"), list[bytes]()
    team = Team(config, DiskFull(0, sent))
    team.ratchet()
    assert team.is_in_step
    with pytest.raises(OSError, match="no space"):
        team.save(Path("anywhere"))
    assert not team.is_in_step


def rank_zero_fails(model: Path) -> None:
    settings = LearnerConfig(steps=1, groups_per_step=1, zero_stage=1, row_tokens=22)
    engine = DeepSpeedEngine(ModelConfig(path=str(model), max_length=11, dtype="float32"), settings, "cpu")
    team = Team(load(ROOT / "examples/addition/addition.toml"), engine)

    def as_learner() -> int:
        if engine.rank > 0:
            team.follow()
            return 0
        try:
            with mock.patch.object(engine, "save", side_effect=OSError("no space left on device")):
                team.save(model / "checkpoint")
        finally:
            if team.is_in_step:
                team.finish()
        return 0

    end(as_learner)


def test_a_rank_that_fails_alone_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a rank failed"):
        run_ranks(rank_zero_fails, write_tiny_model(tmp_path), ranks=2, within_s=120)


def test_every_rank_moves_its_share_of_the_reference() -> None:
    config, sent = load(ROOT / "examples/addition/addition.toml"), list[bytes]()
    first, second = Recording(0, sent), Recording(1, sent)
    team = Team(config, first)
    team.ratchet()
    team.roll_back()
    team.ratchet()
    team.finish()
    Team(config, second).follow()
    assert first.calls == second.calls == ["ratchet", "roll back", "ratchet"]
