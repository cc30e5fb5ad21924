"""The runs to copy for GPUs: their settings hold on the machine that each is named after, and on none smaller."""

import re
from pathlib import Path

import pytest

from services.command import gpus, preflight
from services.config.load import load
from services.errors import InputError

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
    for word in ("Memory, in GB", "Time:", "Cost:", "Disk:", "ratchet up deploy/runs/" + path.name):
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
