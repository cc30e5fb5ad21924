"""The runs to copy for GPUs: their settings hold on the machine that each is named after, and on none smaller."""

import re
from pathlib import Path

import pytest

from services.command import gpus, preflight
from services.config.load import load
from services.errors import InputError
from services.plan.learner import Training
from services.plan.parts import GIB
from services.plan.plan import Machine, plan
from services.plan.shape import ModelShape

SHAPES = {
    "Qwen/Qwen2.5-0.5B-Instruct": ModelShape("0.5B", 494_032_768, 24, 896, 4864, 14, 2, 64, 151_936, tied=True),
    "Qwen/Qwen2.5-1.5B-Instruct": ModelShape("1.5B", 1_543_714_304, 28, 1536, 8960, 12, 2, 128, 151_936, tied=True),
    "Qwen/Qwen2.5-Math-7B": ModelShape("7B", 7_615_616_512, 28, 3584, 18944, 28, 4, 128, 152_064, tied=False),
}
"""The models of the runs, none of which is here, by their published config.json."""
RUNS = sorted((Path(__file__).parents[2] / "deploy" / "runs").glob("*gb.toml"))


def named(path: Path) -> tuple[int, int]:
    """GPUs and GB of each, as the file's name says."""
    found = re.search(r"-(\d+)x(\d+)gb$", path.stem)
    assert found, path.name
    return int(found[1]), int(found[2])


def visible(count: int) -> str:
    return ",".join(str(number) for number in range(count))


def test_there_is_a_run_for_each_kind_of_machine() -> None:
    assert {named(path) for path in RUNS} == {(1, 24), (1, 80), (2, 80), (8, 80)}


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_each_is_accepted_where_there_are_as_many_gpus_as_its_name_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, _ = named(path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible(count))
    config = load(path, [f"runs_folder={tmp_path}"])
    assert preflight.check(config, quick=True).warnings == []
    assert sorted(set(gpus.assigned(config))) == visible(count).split(","), "it uses all of them"


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_each_is_refused_with_a_sentence_where_there_are_fewer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, _ = named(path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible(count - 1))
    with pytest.raises(InputError, match=rf"names {count - 1}"):
        gpus.assigned(load(path))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_on_one_gpu_the_cache_has_its_size_and_weights_go_over_gloo(path: Path) -> None:
    config = load(path)
    shares = named(path)[0] == 1
    assert (config.weights.type == "gloo") is shares
    assert (config.rollout.kv_cache_gib is not None) is shares


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_each_says_what_it_takes_and_whether_it_has_run(path: Path) -> None:
    comment = "".join(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    for word in ("Memory, by `ratchet plan`", "Time:", "Cost:", "Disk:", "ratchet up deploy/runs/" + path.name):
        assert word in comment, word
    assert "Not run yet." in comment


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_each_has_what_bfloat16_and_large_checkpoints_ask_for(path: Path) -> None:
    config = load(path)
    assert config.model.dtype == "bfloat16"
    assert config.learner.ess.calibrate_steps == 8
    assert config.deadlines.shutdown_s >= 300
    assert config.learner.checkpoint.every_steps >= 50
    assert (config.learner.head_chunk_tokens or 0) <= 1024  # by default a GiB of logits


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_each_takes_the_memory_that_it_says_by_the_plan(path: Path) -> None:
    count, _ = named(path)
    config = load(path)
    found = re.search(r"at most ([\d.]+) GiB of ([\d.]+) on", path.read_text(encoding="utf-8"))
    assert found, path.name
    stated, there = float(found[1]), float(found[2])
    planned = plan(Training(config, SHAPES[config.model.path]), Machine(count, round(there * GIB), 512 * GIB))
    on_gpus = [place for place in planned.places if place.capacity_bytes == round(there * GIB)]
    assert planned.fits
    assert max(place.peak_bytes for place in on_gpus) / GIB == pytest.approx(stated, abs=0.1)
