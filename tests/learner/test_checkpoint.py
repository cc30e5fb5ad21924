"""A run continues from what its checkpoint says, or says what the checkpoint lacks."""

import dataclasses
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from learner.batch.step_batch import assemble
from learner.checkpoint import Checkpoints, export_beside
from learner.intake.collector import Sampled
from learner.intake.intake import Intake
from learner.loop import Beginning, TrainingLoop, move_reference
from learner.ranks import Team
from learner.records import Records
from learner.step.report import StepReport, report
from services.config import RunConfig
from services.config.learner import LearnerConfig
from services.config.load import load
from services.errors import InputError
from services.run.checkpoint_names import latest_checkpoint
from services.run.folder import RunFolder
from tests.fakes.train_engine import BigramEngine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    reference = "learner.reference={every_steps = 4, smoothing_steps = 2, roll_back = 0.1}"
    return load(ROOT / "examples/addition/addition.toml", [f"runs_folder={tmp_path}", reference])


class Issuer:
    """Remembers what it continues with."""

    chosen = 0

    def issued_count(self) -> int:
        return 0

    def catch_up(self, on_streams: object, policy_version: int) -> None:
        """Nothing was issued after the checkpoint."""

    def issue_again(self, lost: Sequence[int], issued: int) -> None:
        self.restored = issued, list(lost)

    def to_dict(self, unsettled: Sequence[int]) -> dict[str, Any]:
        return {"next_number": 9}


class Start:
    """One start of the learner, without streams and replicas: steps are not taken here, only what comes after them."""

    def __init__(self, config: RunConfig, *, weights_only: bool = False) -> None:
        anything: Any = None
        self.beginning = Beginning.of(config, weights_only=weights_only)
        self.state = self.beginning.state
        self.ledger = self.beginning.ledger
        self.engine = BigramEngine(seed=0 if self.beginning.checkpoint is None else 1)
        self.team = Team(config, self.engine)
        self.issuer = Issuer()
        self.records = Records(
            RunFolder(config.folder), Sampled(), self.beginning.counts, 1, policy_version=self.state.policy_version
        )
        self.records.close()
        collector: Any = SimpleNamespace(lock=threading.RLock(), settled=list, acknowledge=lambda done: None)
        intake = Intake(
            config,
            state=self.state,
            ledger=self.ledger,
            issuer=self.issuer,  # type: ignore[arg-type]
            collector=collector,
            replicas=anything,
            streams=[],
        )
        self.loop = TrainingLoop(
            config,
            team=self.team,
            state=self.state,
            intake=intake,
            snapshots=anything,
            publisher=anything,
            evaluator=None,
            records=self.records,
            stopping=lambda: False,
        )
        if self.beginning.checkpoint is not None:
            self.loop.load(self.beginning.checkpoint, weights_only=weights_only)

    def save(self) -> None:
        self.loop.saving.begin()
        self.loop.saving.finish()

    def step(self, pass_rate: float) -> None:
        """Take in a step with this pass rate."""
        verdict = self.state.count_step(stepped(pass_rate))
        move_reference(self.team, verdict, self.state.ratchet.reference_version)


def stepped(pass_rate: float) -> StepReport:
    nothing = report(assemble([], 0, LearnerConfig(steps=1, groups_per_step=1)), None)
    return dataclasses.replace(nothing, pass_rate=pass_rate)


def written(config: RunConfig) -> Path:
    """The checkpoint of a run at policy version 7, with something in every place."""
    start = Start(config)
    for number in (0, 1, 3):
        start.ledger.train(number)
    start.ledger.drop(4, "zero_variance")
    start.state.issued = 6
    for _ in range(7):
        start.step(0.5)
    start.save()
    checkpoint = latest_checkpoint(RunFolder(config.folder).checkpoints)
    assert checkpoint is not None
    state = json.loads((checkpoint / "state.json").read_text())
    state["counts"]["trained_tokens"] = 90
    del state["digest"]  # what is changed here by hand is not damage
    (checkpoint / "state.json").write_text(json.dumps(state))
    return checkpoint


def test_what_is_resumed_is_what_was_saved(config: RunConfig) -> None:
    written(config)
    start = Start(config)
    assert start.issuer.restored == (6, [2, 5])
    assert (start.state.ratchet.reference_version, start.state.ratchet.observed_since_swap) == (4, 3)
    assert start.records.counts()["trained_tokens"] == 90


def keys(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from keys(value, (*above, key))


def test_whatever_a_checkpoint_lacks_is_named_with_what_to_do(config: RunConfig) -> None:
    checkpoint = written(config)
    state = json.loads((checkpoint / "state.json").read_text())
    # Checkpoints from before there was a roll-back: nothing to take back. The reasons are only those there were.
    optional: set[tuple[str, ...]] = {
        ("ratchet", key) for key in ("optimizer_steps", "roll_backs", "observed_since_swap", "earlier")
    }
    optional.add(("made_of",))  # nor of what it was made of
    optional.add(("pg_generation",))  # nor of generations
    optional |= {("ledger", "buried"), ("ledger", "exhumed")}  # nor of dead groups that may come back
    optional |= {
        ("prompts",),
        ("prompts", "next_number"),
    }  # nor of prompts that were chosen by state; the issuer reads it
    optional |= {place for place in keys(state) if place[0] in ("files", "digests")}  # nor of what was written
    places = [p for p in keys(state) if p not in optional and p != ("schema",) and p[:2] != ("ledger", "dropped")]
    assert {("ess_control",), ("ess_control", "lag_window", "settling"), ("counts", "wall_seconds")} < set(places)
    for *above, key in [*places, ("ledger", "dropped")]:
        lacking = json.loads(json.dumps(state))
        inside = lacking
        for name in above:
            inside = inside[name]
        del inside[key]
        (checkpoint / "state.json").write_text(json.dumps(lacking))
        with pytest.raises(InputError) as error:
            Start(config)
        assert str(error.value).startswith(
            f"the checkpoint {checkpoint} has no state.json: {'.'.join([*above, key])}: "
        )
        assert "resume with the version that wrote it, or start a new run from its export" in str(error.value)


def test_a_checkpoint_that_lacks_what_training_needs_can_still_be_looked_at(config: RunConfig) -> None:
    checkpoint = written(config)
    state = json.loads((checkpoint / "state.json").read_text())
    del state["ess_control"]
    (checkpoint / "state.json").write_text(json.dumps(state))
    start = Start(config, weights_only=True)
    assert start.state.policy_version == 7
    assert not hasattr(start.issuer, "restored")  # nothing is issued again


def counted(verdict: str) -> float:
    return REGISTRY.get_sample_value("ratchet_learner_reference_verdicts_total", {"verdict": verdict}) or 0.0


def test_the_reference_that_a_roll_back_returns_to_outlives_a_restart(config: RunConfig) -> None:
    start = Start(config)
    before, was = start.engine.reference.clone(), {verdict: counted(verdict) for verdict in ("swap", "roll_back")}
    for pass_rate in (0.5, 0.5, 0.5, 0.5, 0.0):
        start.engine.logits += 1.0
        start.step(pass_rate)
    swapped = start.engine.reference.clone()
    assert not swapped.equal(before)
    start.save()

    resumed = Start(config)
    assert resumed.engine.reference.equal(swapped)
    resumed.step(0.0)
    assert resumed.engine.reference.equal(before)
    assert resumed.state.ratchet.reference_version == 0
    assert [counted(verdict) - count for verdict, count in was.items()] == [1, 1]


class Killed(BaseException):
    """As kill -9: nothing that catches errors sees it."""


def killed_before(operation: int, patch: pytest.MonkeyPatch, work: Callable[[], object]) -> bool:
    """Whether the work ended before it came to so many operations on names in the file system, and on what is to be durable."""
    left = itertools.count(operation, -1)

    def counted_down(real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **options: Any) -> None:
            if next(left) == 0:
                raise Killed
            real(*arguments, **options)

        return call

    with patch.context() as during:
        for name in ("rename", "unlink", "rmdir", "mkdir", "fsync"):
            during.setattr(os, name, counted_down(getattr(os, name)))
        try:
            work()
        except Killed:
            return True
    return False


def save(checkpoints: Checkpoints, policy_version: int, content: str) -> None:
    staging = checkpoints.begin(policy_version)
    for part in ("weights", "optimizer"):
        (staging / part).write_text(content)
    checkpoints.commit(staging, policy_version, {"content": content})


def test_what_a_full_disk_cut_off_is_deleted_and_the_checkpoint_before_is_whole(tmp_path: Path) -> None:
    """So that there is room to end in, and nothing is left that somebody takes for a checkpoint."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 1, "whole")

    staging = checkpoints.begin(2)
    (staging / "weights").write_text("half")
    checkpoints.abandon(staging)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert content(latest_checkpoint(tmp_path)) == "whole"
    save(checkpoints, 2, "after making room")
    assert content(latest_checkpoint(tmp_path)) == "after making room"


def content(checkpoint: Path | None) -> str:
    """What every part of a checkpoint says, if they agree."""
    assert checkpoint is not None
    (said,) = {(checkpoint / part).read_text() for part in ("weights", "optimizer")} | {
        Checkpoints.state(checkpoint)["content"]
    }
    return str(said)


@pytest.mark.parametrize("again", [7, 8])
def test_there_is_a_whole_checkpoint_whenever_the_learner_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: int
) -> None:
    seen = set()
    for operation in itertools.count():
        checkpoints = Checkpoints(tmp_path / str(operation), keep=1)
        save(checkpoints, 7, "first")
        killed = killed_before(operation, monkeypatch, lambda: save(checkpoints, again, "second"))  # noqa: B023
        seen.add(content(latest_checkpoint(tmp_path / str(operation))))
        if not killed:
            break
        for said in ("third", "fourth"):
            save(checkpoints, again, said)
            assert content(latest_checkpoint(tmp_path / str(operation))) == said
        assert [path.name for path in (tmp_path / str(operation)).iterdir()] == [f"step-{again:08d}"]
    assert seen == {"first", "second"}


def test_an_export_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(said: str) -> Callable[[Path], None]:
        def fill(folder: Path) -> None:
            for part in ("config", "weights"):
                (folder / part).write_text(said)

        return fill

    for operation in itertools.count():
        final = tmp_path / str(operation) / "export"
        export_beside(final, write("first"))
        killed = killed_before(operation, monkeypatch, lambda: export_beside(final, write("second")))  # noqa: B023
        if final.exists():
            assert len({(final / part).read_text() for part in ("config", "weights")}) == 1
        if not killed:
            break
        export_beside(final, write("third"))
        assert {(final / part).read_text() for part in ("config", "weights")} == {"third"}
    assert [path.name for path in final.parent.iterdir()] == ["export"]
