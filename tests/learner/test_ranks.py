"""What rank 0 does, every rank does; a rank that fails holds up nobody."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from unittest import mock

import pytest
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.batch.sift import sift, tally
from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.engine.protocol import Backward, LossFunction
from learner.ranks import TakenStep, Team
from services.config.learner import LearnerConfig
from services.config.load import load
from services.config.model import ModelConfig
from services.entry import end
from tests.fakes.ranks import RankEngine, on_ranks
from tests.fakes.train_engine import BigramEngine
from tests.learner.ranks import run_ranks
from tests.learner.tiny import scored_group, write_tiny_model

R = TypeVar("R")
ROOT = Path(__file__).parents[2]


class Recording(BigramEngine):
    """One of two ranks: what rank 0 sends waits in `sent`."""

    world_size = 2

    def __init__(self, rank: int, sent: list[bytes]) -> None:
        super().__init__()
        self.rank = rank
        self.sent = sent

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
    def save(self, folder: Path, *, in_background: bool = False) -> None:
        raise OSError("no space left on device")


@pytest.mark.parametrize("packs", [True, False])
def test_rows_are_shared_only_where_the_engine_says_that_they_may_be(packs: bool) -> None:
    class Rows(BigramEngine):
        packs_rows = packs

        def backward(self, micro_batches: Sequence[MicroBatch], loss: LossFunction[R]) -> Backward[R]:
            self.sequences = [(len(m.token_ids), len(m.sequence_index)) for m in micro_batches]
            return super().backward(micro_batches, loss)

    config = load(ROOT / "examples/addition/addition.toml", ["learner.row_tokens=64"])
    engine = Rows()
    group = scored_group(0, rewards=[1.0, 0.0, 1.0, 0.0])
    sifted = sift(group, 0, config.learner)
    Team(config, engine).step([sifted], tally([group], [sifted]), policy_version=0, learning_rate=0.1)
    assert sum(sequences for _, sequences in engine.sequences) == 4
    assert all(rows == sequences for rows, sequences in engine.sequences) == (not packs)


def test_after_a_failure_in_the_midst_of_an_order_no_rank_is_told_to_finish() -> None:
    """The others wait in a collective: an order to them would wait as well, until the deadline of collectives."""
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


def test_every_rank_takes_the_step_from_what_is_kept_and_the_tally_alone() -> None:
    """Dropped groups do not travel; what was counted of them does."""
    config = load(ROOT / "examples/addition/addition.toml", ["learner.row_tokens=32"])
    rewards = [[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
    groups = [scored_group(index, rewards=each) for index, each in enumerate(rewards)]
    sifted = [sift(group, 2, config.learner) for group in groups]
    kept = [one for one in sifted if one.drop is None]
    assert len(kept) == 2
    sent = list[bytes]()

    def lead_or_follow(engine: RankEngine) -> tuple[TakenStep | None, Tensor]:
        team, taken = Team(config, engine), None
        if engine.rank == 0:
            taken = team.step(kept, tally(groups, sifted), policy_version=2, learning_rate=0.1, full_ess_ratio=0.9)
            team.finish()
        else:
            with mock.patch.object(engine, "broadcast_bytes", side_effect=recorded(engine, sent)):
                team.follow()
        return taken, engine.logits

    ((taken, alone),) = on_ranks(1, lead_or_follow)
    (led, first), (_, second) = on_ranks(2, lead_or_follow)
    assert taken is not None
    assert led is not None
    assert taken.report.zero_variance_fraction == pytest.approx(1 / 3)
    assert taken.lag_tokens == {2: sum(len(t) for group in kept for t in (k.trajectory for k in group.kept))}
    assert first.equal(second)
    assert first.allclose(alone, atol=1e-6)
    assert b"train-0" in sent[0]
    assert not any(b"train-1" in order for order in sent)


def recorded(engine: RankEngine, sent: list[bytes]) -> Callable[[bytes | None], bytes]:
    receive = engine.broadcast_bytes

    def broadcast_bytes(payload: bytes | None) -> bytes:
        sent.append(receive(payload))
        return sent[-1]

    return broadcast_bytes
