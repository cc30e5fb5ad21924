"""Each tracker by one setting; its package is looked for before anything starts. The packages are stood in for here."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from learner.tracking.choice import open_trackers, tracking_id
from services.config.load import load, render_masked
from services.errors import InputError
from services.run.folder import RunFolder
from tests.services.command.running import run


def module(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    monkeypatch.setitem(sys.modules, name, made)
    return made


class Run:
    """What wandb and trackio give for a run."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.given: dict[str, Any] = {}

    def opened_with(self, **given: Any) -> "Run":
        self.given = given
        return self

    def define_metric(self, *arguments: Any, **more: Any) -> None:
        self.said.append((arguments, more))

    def log(self, figures: dict[str, float], **more: Any) -> None:
        self.said.append((figures, more))

    def finish(self) -> None:
        self.said.append("finished")


def test_nothing_is_opened_unless_it_is_set(tmp_path: Path) -> None:
    assert open_trackers(run(tmp_path)) == []


def test_wandb_gets_figures_by_policy_version_and_settings_without_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Run()
    module(monkeypatch, "wandb", Settings=dict, init=there.opened_with)
    config = run(tmp_path, 'tracking.wandb="team/sums"', 'redis.url="redis://:hidden@host:6379/0"')
    (outbox,) = open_trackers(config)
    outbox.log(3, {"step/loss": 0.5, "step/odd": float("nan")})
    outbox.close()
    given = there.given
    assert (given["project"], given["entity"], given["name"]) == ("sums", "team", config.name)
    assert given["id"] == tracking_id(RunFolder(config.folder))
    assert "hidden" not in str(given)
    assert given["config"]["learner.steps"] == config.learner.steps
    assert there.said[1:] == [({"policy_version": 3, "step/loss": 0.5}, {}), "finished"]


def test_trackio_gets_figures_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Run()
    module(monkeypatch, "trackio", init=there.opened_with)
    (outbox,) = open_trackers(run(tmp_path, 'tracking.trackio="sums"'))
    outbox.log(3, {"step/loss": 0.5})
    outbox.close()
    assert there.given["project"] == "sums"
    assert there.said == [({"step/loss": 0.5}, {"step": 3}), "finished"]


def test_mlflow_goes_on_in_the_run_of_the_start_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: dict[str, str] = {}
    batches: list[dict[str, Any]] = []

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            assert tracking_uri == "http://host:5000"

        def get_experiment_by_name(self, name: str) -> Any:
            return SimpleNamespace(experiment_id="7") if name == "ratchet" else None

        def search_runs(self, experiments: list[str], where: str) -> list[Any]:
            return [SimpleNamespace(info=SimpleNamespace(run_id=one)) for one, tag in runs.items() if tag in where]

        def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
            runs[f"run-{len(runs)}"] = next(iter(tags.values()))
            return SimpleNamespace(info=SimpleNamespace(run_id=f"run-{len(runs) - 1}"))

        def log_batch(self, run_id: str, **what: Any) -> None:
            batches.append({"run": run_id, **what})

        def set_terminated(self, run_id: str, status: str = "FINISHED") -> None:
            batches.append({"run": run_id, "status": status})

    module(monkeypatch, "mlflow")
    module(monkeypatch, "mlflow.entities", Metric=lambda *parts: parts, Param=lambda *parts: parts)
    module(monkeypatch, "mlflow.tracking", MlflowClient=Client)
    config = run(tmp_path, 'tracking.mlflow="http://host:5000"')
    for step in (1, 2):
        (outbox,) = open_trackers(config)
        outbox.log(step, {"step/loss": 0.5})
        outbox.close()
    sent = [(one["run"], one["metrics"][0][0], one["metrics"][0][3]) for one in batches if "metrics" in one]
    assert sent == [("run-0", "step/loss", 1), ("run-0", "step/loss", 2)]
    assert batches[-1] == {"run": "run-0", "status": "FINISHED"}


def test_a_missing_package_is_said_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = run(tmp_path, 'tracking.wandb="a"', 'tracking.trackio="b"')
    with pytest.raises(InputError, match=r"tracking.wandb and tracking.trackio need .* `pip install wandb trackio`"):
        config.tracking.check_packages()
    run(tmp_path).tracking.check_packages()


@pytest.mark.parametrize(
    ("override", "said"),
    [('tracking.mlflow="host:5000"', "is not a tracking URI"), ('tracking.wandb=" "', "wandb is empty")],
)
def test_a_value_that_cannot_be_one_is_refused(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(tmp_path, override)


def test_the_password_of_a_tracking_uri_is_not_shown(tmp_path: Path) -> None:
    config = run(tmp_path, 'tracking.mlflow="https://me:hidden@host"')
    assert "hidden" not in render_masked(config)
    assert load(tmp_path / "run.toml", []).tracking.chosen() == {}
