"""What is chosen where the run file says "auto": replicas and threads, from the cores or GPUs that there are."""

import os
from pathlib import Path

import pytest

from services.command import gpus, shares
from services.command.shares import choices, with_choices
from services.command.up import up
from services.config import RunConfig
from services.config.load import load, render
from services.errors import InputError
from services.run.folder import RunFolder
from tests.services.command.running import Recording, run


def numbers(config: RunConfig, cores: int, gpu_count: int | None = None) -> dict[str, int]:
    return {f"{one.section}.{one.key}": one.number for one in choices(config, cores, gpu_count)}


def threads_in_all(config: RunConfig) -> int:
    learner, rollout = config.learner, config.rollout
    return learner.ranks * learner.threads + rollout.replica_count * rollout.engine_threads


@pytest.mark.parametrize(
    ("cores", "learner", "replicas", "engine", "graders"),
    [
        (1, 1, 1, 1, 2),
        (2, 1, 1, 1, 2),
        (3, 1, 1, 2, 2),
        (4, 1, 1, 2, 2),
        (8, 3, 1, 4, 2),
        (16, 7, 2, 4, 4),
        (64, 31, 4, 8, 16),
    ],
)
def test_cores_are_dealt_out_once(
    tmp_path: Path, cores: int, learner: int, replicas: int, engine: int, graders: int
) -> None:
    config = run(tmp_path)
    assert numbers(config, cores) == {
        "learner.cpu_threads": learner,
        "rollout.replicas": replicas,
        "rollout.cpu_threads": engine,
        "verifier.processes": graders,
    }
    assert threads_in_all(with_choices(config, choices(config, cores, None))) <= max(2, cores)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"learner.ranks": 4}, {"learner.cpu_threads": 1, "rollout.replicas": 2, "rollout.cpu_threads": 5}),
        ({"learner.cpu_threads": 11}, {"rollout.replicas": 1, "rollout.cpu_threads": 4}),
        ({"rollout.replicas": 8}, {"learner.cpu_threads": 7, "rollout.cpu_threads": 1}),
        ({"rollout.cpu_threads": 2}, {"learner.cpu_threads": 7, "rollout.replicas": 4}),
        ({"rollout.metrics_port": 9100}, {"learner.cpu_threads": 7, "rollout.replicas": 1, "rollout.cpu_threads": 8}),
    ],
)
def test_what_is_given_stays_and_the_rest_is_chosen_around_it(
    tmp_path: Path, given: dict[str, int], found: dict[str, int]
) -> None:
    config = run(tmp_path, *(f"{name}={number}" for name, number in given.items()))
    assert numbers(config, 16) == {**found, "verifier.processes": 4}


def test_where_everything_is_given_nothing_is_chosen(tmp_path: Path) -> None:
    given = ["learner.cpu_threads=9", "rollout.replicas=9", "rollout.cpu_threads=9", "verifier.processes=9"]
    assert choices(run(tmp_path, *given), 2, None) == []
    assert threads_in_all(run(tmp_path, *given)) == 90


def test_a_verifier_that_runs_elsewhere_is_not_chosen_for(tmp_path: Path) -> None:
    assert "verifier.processes" not in numbers(run(tmp_path, "verifier.url=http://there:1"), 64)


@pytest.mark.parametrize(
    ("given", "gpu_count", "replicas"),
    [
        ([], 1, 1),
        ([], 8, 7),
        (["learner.ranks=2", "rollout.tensor_parallel=2"], 8, 3),
        (["learner.ranks=8"], 8, 1),
        ([], None, 1),
        (["rollout.metrics_port=9100"], 8, 1),
    ],
)
def test_replicas_take_the_gpus_that_the_learner_leaves(
    tmp_path: Path, given: list[str], gpu_count: int | None, replicas: int
) -> None:
    config = run(tmp_path, "device=cuda", *given)
    found = numbers(config, 64, gpu_count)
    assert found["rollout.replicas"] == replicas
    assert (found["learner.cpu_threads"], found["rollout.cpu_threads"]) == (1, 1)


def test_up_starts_what_is_chosen_here_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_preflight: None
) -> None:
    seen: list[RunConfig] = []

    class Seeing(Recording):
        def __call__(self, config: RunConfig, *arguments: object, **more: object) -> int:
            seen.append(config)
            return super().__call__(config, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    up(run(tmp_path, "rollout.cpu_threads=3"), Seeing())
    assert (seen[0].learner.cpu_threads, seen[0].rollout.replicas, seen[0].rollout.cpu_threads) == (7, 2, 3)
    said = capsys.readouterr().out
    assert "chosen for this machine: learner.cpu_threads = 7: half of 16 cores less one for the other services" in said
    assert "rollout.replicas = 2: 8 of 16 cores are left for sampling, one engine takes 3" in said
    assert "rollout.cpu_threads" not in said


def test_on_gpus_of_this_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VARIABLE, "4,5,6")
    config = run(tmp_path, "device=cuda")
    chosen = shares.with_choices(config, shares.chosen_here(config))
    assert chosen.rollout.replicas == 2
    assert gpus.assigned(chosen) == ["4", "5", "6"]


def test_the_word_survives_a_round_trip_and_another_is_refused(tmp_path: Path) -> None:
    config = run(tmp_path)
    (tmp_path / "again.toml").write_text(render(config), encoding="utf-8")
    assert load(tmp_path / "again.toml") == config
    assert config.rollout.replicas == "auto"
    for value in ("many", "0", "1.5"):
        with pytest.raises(InputError, match=r"rollout\.replicas = .*: input should be"):
            run(tmp_path, f"rollout.replicas={value}")
    assert RunFolder(config.folder).settings.exists() is False
