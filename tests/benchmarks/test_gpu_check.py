"""The check for a GPU runs here without one, so that it runs the first time where there is one."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.attention import attention
from benchmarks.gpu.card import MARK, Card
from benchmarks.gpu.check import run
from benchmarks.gpu.head import head
from benchmarks.gpu.learner import others
from benchmarks.gpu.models import models
from benchmarks.gpu.plan import LEARNER, PLAN, Step, chosen
from benchmarks.gpu.profiled import kind_of
from benchmarks.gpu.weights import weights
from services.command.requirements import normal

ROOT = Path(__file__).parents[2]
THERE = frozenset(
    """
    accelerate anyio dill filelock googleapis-common-protos h11 httpcore2 httpx2 huggingface-hub idna jinja2
    markupsafe mpmath numpy packaging pillow prometheus-client protobuf psutil pyyaml regex safetensors
    setuptools sniffio sympy tokenizers torch tqdm transformers truststore xxhash
    """.split()  # noqa: SIM905 - as a list it is a page long
)
"""What such a machine was seen to have."""


def rows_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix(MARK)) for line in out.splitlines() if line.startswith(MARK)]


def test_steps_run_as_processes_and_leave_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run(Card(cpu=True, models=tmp_path / "models"), "watchdog", 120.0, tmp_path)
    kept = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    cases = {(row["step"], row["case"]): row for row in kept["rows"]}
    assert cases["watchdog", "broadcast"]["raised"] == "nothing"
    assert cases["watchdog", "alive"]["card_works"] is True
    assert cases["watchdog", "END"]["verdict"] == "exit 0"
    assert "alive" in capsys.readouterr().out


def test_the_head_and_the_weights_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = Card(cpu=True, models=tmp_path)
    models(card, "")
    capsys.readouterr()
    head(card, "")
    weights(card, "")
    rows = rows_of(capsys.readouterr().out)
    assert {row["case"] for row in rows} == {
        *(
            "its four products alone",
            "chunk 512",
            "chunk 1024",
            "chunk 2048",
            "chosen chunk, no temperature",
            "whole logits",
            "tiny, buckets on cpu",
        )
    }
    assert not [row for row in rows if "failed" in row]
    assert rows[-1]["same"] is True


def test_padded_steps_of_others_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = Card(cpu=True, models=tmp_path)
    models(card, "1.7B")
    others(card, "1.7B,65536,1024")
    rows = rows_of(capsys.readouterr().out)
    [row] = [row for row in rows if row["case"] == "padded, whole logits, 4 at once"]
    assert row["tokens"] < row["padded_tokens"]
    assert row["tokens_s"] > 0


def test_attention_is_measured_in_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = Card(cpu=True, models=tmp_path)
    models(card, "")
    attention(card, "0.5B,16384")
    rows = {row["case"]: row for row in rows_of(capsys.readouterr().out)}
    assert not [row for row in rows.values() if "failed" in row]
    assert rows["model"]["by_span"] is True
    assert rows["again"]["equal"] is True
    ways = [rows[way] for way in ("dense mask", "one sequence a row", "by span", "by span, prompts shared")]
    assert all(way["gap_mean"] < 0.05 and abs(way["grad_norm_over"] - 1) < 0.1 for way in ways)
    assert ways[3]["in_rows"] < ways[2]["in_rows"]


def test_what_the_steps_import_is_there_or_carried() -> None:
    """A GPU machine without a network has torch and transformers, and what these need; carry.sh brings the rest."""
    steps = {step.work.partition(":")[0] for together in (*PLAN, *LEARNER) for step in together}
    code = f"""
import importlib, sys
from importlib.metadata import packages_distributions
from pathlib import Path
for name in {sorted(steps)}:
    importlib.import_module("benchmarks.gpu." + name)
known = packages_distributions()
print(*sorted({{each for name in list(sys.modules) for each in known.get(name.partition(".")[0], [])}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = {normal(name) for name in done.stdout.split()} - {"ratchet"}
    [names] = re.findall(r"for name in (annotated-types [^;]+);", (ROOT / "benchmarks/gpu/carry.sh").read_text("utf-8"))
    assert imported - THERE - set(names.split()) == set()


def test_a_step_without_time_left_is_not_begun(tmp_path: Path) -> None:
    run(Card(cpu=True, models=tmp_path), "head", 1.0, tmp_path)
    [row] = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))["rows"]
    assert row["verdict"] == "not begun: no time left"


def test_steps_are_chosen_by_their_beginnings_with_the_models_they_need() -> None:
    def names(words: str) -> list[str]:
        return [step.name for together in chosen(words) for step in together]

    assert names("") == [step.name for together in PLAN for step in together]
    assert names("watchdog,streams") == ["watchdog", "streams"]
    assert names("profile 0.5B") == ["models", "profile 0.5B"]
    assert [step.name for together in chosen("4B", LEARNER) for step in together] == ["models", "4B rows of 16k"]


@pytest.mark.parametrize(
    "step", [step for together in (*PLAN, *LEARNER) for step in together], ids=lambda step: step.name
)
def test_every_step_names_a_function_of_the_package(step: Step) -> None:
    module, _, function = step.work.partition(":")
    source = (ROOT / "benchmarks/gpu" / f"{module}.py").read_text(encoding="utf-8")
    assert f"def {function}(card: Card, " in source


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("Memcpy DtoH (Device -> Pageable)", "copies"),
        ("pytorch_flash::flash_fwd_kernel<...>", "attention"),
        ("fmha_cutlassB_bf16_aligned_128x64_k64_sm80", "attention"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_TNT", "matrix products"),
        ("void at::native::multi_tensor_apply_kernel<...>", "optimizer"),
        ("void at::native::(anonymous namespace)::cunn_SoftMaxForward<4, float, float>", "softmax"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>", "elementwise"),
        ("ncclDevKernel_Broadcast", "other"),
    ],
)
def test_kernels_are_told_apart_by_their_names(kernel: str, kind: str) -> None:
    assert kind_of(kernel) == kind
