"""How much a run puts on the disk, and what is said where that does not fit."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from services.command import disk_room
from services.command.disk_room import bytes_of_run, disk_finding
from services.config import RunConfig
from services.config.load import load
from tests.services.config.test_load import SMALLEST

GIB = 2**30
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """GiB that every disk has free; the test changes it."""
    gib = [100.0]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(gib[0] * GIB)))
    return gib


def a_run(tmp_path: Path, *overrides: str) -> RunConfig:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    return load(tmp_path / "run.toml", [f"runs_folder={tmp_path}/runs", *overrides])


def put_weights(folder: Path, parameters: int, dtype: str) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(f'{{"torch_dtype": "{dtype}"}}', encoding="utf-8")
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(parameters * (2 if dtype == "bfloat16" else 4))


def test_without_a_run_the_smallest_of_its_device_has_to_fit(free: list[float]) -> None:
    assert disk_finding("cuda").ok
    free[0] = 29.0
    assert disk_finding("cpu").ok
    assert disk_finding("cuda").action == "checkpoints need space: free 30 GiB"
    free[0] = 1.0
    assert disk_finding("cpu").action == "checkpoints need space: free 2 GiB"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_takes_its_checkpoints_and_its_export(tmp_path: Path, free: list[float], dtype: str) -> None:
    put_weights(tmp_path / "model", 10**9, dtype)
    config = a_run(tmp_path, "learner.checkpoint.keep=2")
    needed = bytes_of_run(config)
    assert needed is not None
    assert needed == 3 * 16 * 10**9 + 10**9 * (2 if dtype == "bfloat16" else 4)
    assert bytes_of_run(a_run(tmp_path, "device=cuda")) == needed + disk_room.COMPILED_BYTES
    assert disk_finding("cpu", config).seen.endswith(f"the run takes {needed / GIB:.1f} GiB")
    free[0] = 40.0
    finding = disk_finding("cpu", config)
    assert not finding.ok
    assert "lower learner.checkpoint.keep = 2" in finding.action


def test_a_model_from_the_hub_is_found_where_it_was_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: list[float]
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    config = a_run(tmp_path, "model.path=Some/Model")
    assert bytes_of_run(config) is None
    assert disk_finding("cuda", config).seen.endswith(f"free in {tmp_path}")
    put_weights(tmp_path / "hf/hub/models--Some--Model/snapshots/123", 10**6, "bfloat16")
    assert bytes_of_run(config) == 3 * 16 * 10**6 + 2 * 10**6
