"""What is refused before anything is started."""

import json
from pathlib import Path

import pytest
from transformers import Qwen2Config

from learner.control.schedule import scheduled_learning_rate
from services import numa
from services.command import preflight, slow_check
from services.command.check_rows import check_rows
from services.config import RunConfig
from services.config.load import load
from services.errors import InputError
from services.run import made_of
from services.run.checkpoint_files import write_state
from tests.architectures import SIZES, randomized
from tests.services.config.test_load import SMALLEST


@pytest.fixture
def on_cpu(tmp_path: Path) -> RunConfig:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    return load(tmp_path / "run.toml")


def test_a_machine_without_libnuma_is_refused_before_anything_else(
    on_cpu: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numa, "find", lambda: None)
    with pytest.raises(InputError, match=r"libnuma\.so\.1.*apt-get install libnuma1"):
        preflight.check(on_cpu)


def test_compiling_the_model_on_a_cpu_needs_a_compiler(
    on_cpu: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    rollout = on_cpu.rollout.model_copy(update={"enforce_eager": False})
    with pytest.raises(InputError, match=r"enforce_eager = false.*no g\+\+"):
        preflight.check(on_cpu.model_copy(update={"rollout": rollout}))


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_settings_of_a_model_that_are_not_json_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    (tmp_path / "train.jsonl").write_text('{"prompt": "1+1=", "reference": "2"}\n', encoding="utf-8")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(content, encoding="utf-8")
    (folder / "model.safetensors").touch()
    with pytest.raises(
        InputError, match=r"model\.path: .*config\.json cannot be read as a model's settings: .*get it again"
    ):
        preflight.check(load(tmp_path / "run.toml", [f"model.path={folder}"]))


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    (tmp_path / "file").touch()
    config = load(tmp_path / "run.toml", [f"runs_folder={tmp_path}/file", "learner.metrics_host=192.0.2.1"])
    with pytest.raises(InputError) as refused:
        preflight.check(config)
    said = str(refused.value)
    assert "is a file, where a folder has to be" in said
    assert "learner.metrics_host" in said


def test_quick_leaves_out_the_model_and_the_rows(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    config = load(tmp_path / "run.toml", [f"runs_folder={tmp_path}/runs"])
    preflight.check(config, quick=True)
    (tmp_path / "train.jsonl").write_text('{"prompt": "1+1=", "reference": "2"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"model\.path: no folder"):
        preflight.check(config)


def test_threads_that_crowd_the_machine_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    config = load(
        tmp_path / "run.toml", [f"runs_folder={tmp_path}/runs", "rollout.replicas=9", "rollout.cpu_threads=99"]
    )
    warnings = preflight.check(config, quick=True).warnings
    assert any("computes with 892 threads" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("seed=5", r"step-00000002 is of a run that was made of something else:\n  seed: was 0, is now 5"),
        (
            "learner.lora.rank=4",
            r"trains every weight, and this one trains adapters of rank 4; set \[learner\.lora\] back",
        ),
        ("learner.steps=99", None),
        ("learner.ranks=2", None),
        ("learner.zero_stage=2", None),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_before_anything_starts(
    small_data: Path, override: str, complaint: str | None
) -> None:
    first = load(small_data / "run.toml", [f"runs_folder={small_data}/runs"])
    found, _ = check_rows(first)
    checkpoint = first.folder / "checkpoints" / "step-00000002"
    checkpoint.mkdir(parents=True)
    made = made_of.made_of(first, found[0].usable, None)
    (checkpoint / "engine.json").write_text(json.dumps({"ranks": 1, "zero_stage": 1}), encoding="utf-8")
    write_state(checkpoint, {"made_of": made})
    config = load(small_data / "run.toml", [f"runs_folder={small_data}/runs", override])
    if complaint is None:
        slow_check.check_checkpoint(config, found[0].usable, None)
        return
    with pytest.raises(InputError, match=complaint):
        slow_check.check_checkpoint(config, found[0].usable, None)


def test_adapted_layers_are_looked_for_in_the_model(small_data: Path) -> None:
    model = small_data / "adapted"
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}  # of 32, which the engine on a CPU takes
    randomized(Qwen2Config(**SIZES | heads)).save_pretrained(model)
    (small_data / "model" / "config.json").unlink()
    for file in (small_data / "model").iterdir():
        file.rename(model / file.name)
    overrides = [f"model.path={model}", f"runs_folder={small_data}/runs", "learner.optimizer.learning_rate=1e-5"]
    preflight.check(load(small_data / "run.toml", [*overrides, "learner.lora.targets=['q_proj']"]))
    with pytest.raises(InputError, match=r'learner\.lora\.targets: "q" is not a layer of model\.path = '):
        preflight.check(load(small_data / "run.toml", [*overrides, "learner.lora.targets=['q']"]))


@pytest.mark.parametrize(("override", "warned"), [("learning_rate=1e-6", False), ("beta1=0.5", True)])
def test_a_learning_rate_of_full_training_is_a_warning_beside_adapters(
    tmp_path: Path, override: str, warned: bool
) -> None:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    overrides = [f"runs_folder={tmp_path}/runs", "learner.lora.rank=8", f"learner.optimizer.{override}"]
    warnings = preflight.check(load(tmp_path / "run.toml", overrides), quick=True).warnings
    assert any("its default 1e-06 is for full training" in warning for warning in warnings) == warned


@pytest.mark.parametrize("name", ["state.json", "engine.json"])
def test_a_damaged_checkpoint_is_named_before_anything_starts(small_data: Path, name: str) -> None:
    config = load(small_data / "run.toml", [f"runs_folder={small_data}/runs"])
    checkpoint = config.folder / "checkpoints" / "step-00000002"
    checkpoint.mkdir(parents=True)
    (checkpoint / "engine.json").write_text("{}", encoding="utf-8")
    write_state(checkpoint, {})
    (checkpoint / name).write_text('{"ranks"', encoding="utf-8")
    with pytest.raises(InputError, match=rf"can be gone on from:\n  .*step-00000002/{name} is damaged: "):
        slow_check.check_checkpoint(config, check_rows(config)[0][0].usable, None)


@pytest.mark.parametrize(("warmup", "highest"), [(9, None), (10, "0.91"), (100000, "0.0001")])
def test_a_warm_up_that_outlasts_the_run_is_a_warning(tmp_path: Path, warmup: int, highest: str | None) -> None:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    overrides = [f"runs_folder={tmp_path}/runs", f"learner.optimizer.warmup_steps={warmup}"]
    config = load(tmp_path / "run.toml", overrides)
    said = [warning for warning in preflight.check(config, quick=True).warnings if "warmup_steps" in warning]
    if highest is None:
        assert said == []
        return
    assert (
        f"warmup_steps = {warmup} is not below learner.steps = 10: the learning rate gets no higher than {highest} of"
        in said[0]
    )
    rates = [scheduled_learning_rate(config.learner.optimizer, step, 10) for step in range(10)]
    assert max(rates) / config.learner.optimizer.learning_rate == pytest.approx(float(highest), rel=0.01)
