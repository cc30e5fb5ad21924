"""Who gets which GPU, and who shares one."""

from pathlib import Path

import pytest

from services.command import gpus, preflight
from services.config import RunConfig
from services.config.load import load
from services.config.rollout import SHARED_CACHE_GIB
from services.errors import InputError
from tests.services.config.test_load import SMALLEST


def a_run(tmp_path: Path, *overrides: str) -> RunConfig:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    return load(tmp_path / "run.toml", ["device=cuda", f"runs_folder={tmp_path}/runs", *overrides])


@pytest.fixture
def four_gpus(tmp_path: Path) -> RunConfig:
    return a_run(tmp_path, "weights.type=nccl", "learner.ranks=2", "rollout.replicas=2")


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (None, ["0", "1", "2", "3"]),
        ("4,5,6,7", ["4", "5", "6", "7"]),
        ("7, 3,1,0,2", ["7", "3", "1", "0"]),
        ("GPU-8932f937,GPU-1a,MIG-2b,GPU-3c", ["GPU-8932f937", "GPU-1a", "MIG-2b", "GPU-3c"]),
    ],
)
def test_a_run_takes_only_gpus_that_this_process_may_use(
    four_gpus: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str | None, taken: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "OF_THE_DRIVER", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert gpus.assigned(four_gpus) == taken


@pytest.mark.parametrize(("given", "has"), [("", 0), ("0,1,2", 3), ("0,1,-1,2,3", 2)])
def test_too_few_gpus_are_refused_with_what_the_run_takes(
    four_gpus: RunConfig, monkeypatch: pytest.MonkeyPatch, given: str, has: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    with pytest.raises(InputError, match=rf"takes 4 GPUs \(learner\.ranks = 2.*names {has}"):
        gpus.assigned(four_gpus)


def test_a_cpu_run_asks_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.assigned(a_run(tmp_path, "device=cpu")) == []


@pytest.mark.parametrize(
    ("given", "overrides", "taken"),
    [
        ("5", [], ["5", "5"]),
        ("5", ["rollout.replicas=2"], ["5", "5", "5"]),
        ("0,1", ["rollout.replicas=2"], ["0", "1", "0"]),
        ("0,1", ["learner.ranks=2", "rollout.tensor_parallel=2"], ["0", "1", "0", "1"]),
        ("0,1", ["rollout.tensor_parallel=2"], ["0", "1", "0"]),
        ("0,1,2", [], ["0", "1"]),
    ],
)
def test_over_gloo_processes_share_gpus_but_for_ranks_and_the_workers_of_a_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, overrides: list[str], taken: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    config = a_run(tmp_path, *overrides)
    assert gpus.assigned(config) == taken
    ranks, width = config.learner.ranks, config.rollout.tensor_parallel
    for group in [taken[:ranks], *(taken[at : at + width] for at in range(ranks, len(taken), width))]:
        assert len(set(group)) == len(group), "two members of one NCCL group have the same GPU"


def test_one_gpu_over_nccl_is_told_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(
        InputError, match=r'weights\.type = "nccl" no two processes share one\. Set weights\.type = "gloo"'
    ):
        preflight.check(a_run(tmp_path, "weights.type=nccl"), quick=True)


@pytest.mark.parametrize("override", ["learner.ranks=2", "rollout.tensor_parallel=2"])
def test_what_meets_over_nccl_cannot_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(InputError, match=r"the learner's ranks need a GPU each, and so do the . workers of a replica"):
        gpus.assigned(a_run(tmp_path, override))


def test_gpus_are_counted_where_no_variable_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "OF_THE_DRIVER", tmp_path / "gpus")
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    assert gpus.visible() == ["0"]
    assert gpus.assigned(a_run(tmp_path)) == ["0", "0"]


def test_without_folders_of_the_driver_nvidia_smi_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "OF_THE_DRIVER", tmp_path / "none")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, GPU-1, a card, 580.95, 9.0, 81559, 81000'\n", encoding="utf-8")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.visible() == ["0"]


def test_a_machine_without_gpus_checks_the_run_for_another(
    four_gpus: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "OF_THE_DRIVER", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    (warning,) = gpus.check(four_gpus)
    assert "takes 4 GPUs" in warning
    assert "this machine has none" in warning


@pytest.mark.parametrize(
    ("given", "overrides", "cache"),
    [
        ("0", [], SHARED_CACHE_GIB),
        ("0", ["rollout.kv_cache_gib=9"], 9.0),
        ("0", ["rollout.gpu_memory_fraction=0.3"], None),
        ("0,1", [], None),
    ],
)
def test_on_a_shared_gpu_the_cache_has_a_size_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, overrides: list[str], cache: float | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert gpus.fitted(a_run(tmp_path, *overrides)).rollout.kv_cache_gib == cache


@pytest.mark.parametrize(("given", "warned"), [("0", True), ("0,1", False)])
def test_a_fraction_of_a_shared_gpu_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, warned: bool
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    said = gpus.check(a_run(tmp_path, "rollout.gpu_memory_fraction=0.3"))
    assert [("set rollout.kv_cache_gib instead" in warning) for warning in said] == [True] * warned
