"""A recorded run of four steps on a real engine, and its replays, run in one process by test_replay.py."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from learner.checkpoint import Checkpoints
from learner.control.schedule import scheduled_learning_rate
from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.intake.ledger import Ledger
from learner.loop import move_reference
from learner.ranks import Team
from learner.recorded_steps import RecordedStep, RecordedSteps, read_recorded, recorded
from learner.records import NOTHING_COUNTED
from learner.replay import order_of, place_of, replay
from learner.replay_command import altered_settings, result
from learner.run_state import RunState
from services.config import RunConfig
from services.config.load import load, render
from services.run.folder import RunFolder
from services.wire.score import ScoredGroup
from services.wire.weights import Probe
from tests.learner.tiny import scored_group

PROBE = (1, 2, 3, 4, 5)


def a_run(folder: Path, model: Path) -> RunConfig:
    """Its settings, in its folder. One that moves its reference and cuts gradients by those before, so that both count."""
    root = Path(__file__).parents[2]
    config = load(
        root / "examples/addition/addition.toml",
        [
            f"model.path={model}",
            "model.max_length=11",
            "rollout.sampling.max_tokens=5",
            f"runs_folder={folder}",
            "learner.steps=9",
            "learner.max_lag=3",
            'learner.stale_tokens="mask"',
            "learner.row_tokens=22",
            "learner.optimizer.learning_rate=0.01",
            "learner.reference={every_steps = 2, smoothing_steps = 1}",
            "learner.checkpoint={every_steps = 2, keep = 9, replay_steps = 9}",
        ],
    )
    run = RunFolder(config.folder)
    run.path.mkdir(parents=True)
    run.settings.write_text(render(config), encoding="utf-8")
    return config


def consumed(version: int, best: int = 0) -> list[ScoredGroup]:
    """The groups of one step: every second one was sampled under version 0. best: the response with the highest reward."""
    rewards = [0.5, 0.5, 0.5]
    rewards[best], rewards[1 - best] = 1.0, 0.0
    responses = [[2, 3, 1], [4, 5], [6, 1, 2, 3]]
    return [
        scored_group(
            4 * version + i,
            rewards=rewards,
            responses=[[i + 1, *response] for response in responses],
            versions=[[(version if i % 2 else 0, len(response) + 1)] for response in responses],
        )
        for i in range(4)
    ]


def take_four_steps(config: RunConfig) -> None:
    """As the training loop does, with a checkpoint after the second."""
    run = RunFolder(config.folder)
    engine = DeepSpeedEngine(config.model, config.learner, "cpu", seed=config.seed)
    team, state = Team(config, engine), RunState.begin(config.learner)
    steps = RecordedSteps(run.replay, config.learner.checkpoint.replay_steps)
    checkpoints = Checkpoints(run.checkpoints, keep=9)
    for version in range(4):
        groups = consumed(version)
        step = RecordedStep(
            policy_version=version,
            groups=groups,
            learning_rate=scheduled_learning_rate(config.learner.optimizer, version, config.learner.steps),
            full_ess_ratio=state.ess_control.full_ratio,
        )
        taken = team.step(**order_of(config, step))
        steps.take(step, taken.report)
        move_reference(team, state.count_step(taken.report), state.ratchet.reference_version)
        steps.write(version + 1, [Probe(PROBE, tuple(team.probe_logps([PROBE])[0]))])
        if version == 1:
            staging = checkpoints.begin(2)
            engine.save(staging)
            assert engine.is_saved(wait=True)
            saved = {**state.to_dict(), "ledger": Ledger().to_dict(), "counts": NOTHING_COUNTED}
            checkpoints.commit(staging, 2, saved)


def replayed(config: RunConfig, step: int, *overrides: str) -> dict[str, Any]:
    run = RunFolder(config.folder)
    place = place_of(run, step)
    altered = altered_settings(run, overrides) if overrides else None
    recorded_step, own, other = replay(config, place, altered)
    return result(recorded_step, own, other, 1e-4, origin=str(place.checkpoint))


def main(folder: Path, model: Path) -> None:
    torch.set_num_threads(1)
    config = a_run(folder, model)
    take_four_steps(config)
    run = RunFolder(config.folder)
    found: dict[str, Any] = {
        "after the checkpoint": replayed(config, 3, "learner.ess.enabled=false"),
        "two after it, with another lag and objective": replayed(
            config, 4, "learner.max_lag=2", "learner.objective.type=grpo"
        ),
        "from the beginning": replayed(config, 2),
    }
    # A step that was not the recorded one: its rewards are turned round.
    path = recorded(run.replay)[4]
    was = read_recorded(path)
    steps = RecordedSteps(run.replay, 9)
    other = RecordedStep(
        policy_version=3,
        groups=consumed(3, best=1),
        learning_rate=was.learning_rate,
        full_ess_ratio=was.full_ess_ratio,
        report=was.report,
        probes=was.probes,
    )
    steps.put(other)
    found["another step"] = replayed(config, 4)
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
