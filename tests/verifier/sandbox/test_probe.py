import logging
import os
import shutil
import sys
from pathlib import Path

import pytest

from services.config.sandbox import Bubblewrap, NoSandbox
from tests.verifier.sandbox.machine import sandbox_or_skip
from verifier.grader import ScoringFault
from verifier.graders.code.grader import CodeTests
from verifier.sandbox import probe as probing
from verifier.sandbox.interpreter import inspect
from verifier.sandbox.probe import environment_for_graders, probe
from verifier.sandbox.session import SandboxFailed

REFERENCE = {"kind": "function", "entry_point": "f", "tests": [{"args": [1], "expected": 1}]}


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_known", {})
    for name in ("RATCHET_SANDBOX", "RATCHET_SANDBOX_FOUND"):
        monkeypatch.delenv(name, raising=False)


def test_a_machine_without_bubblewrap_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = probe(Bubblewrap())
    assert found.launcher is None
    assert "bubblewrap is not installed" in found.missing
    assert "apt-get install bubblewrap" in found.missing


def test_nothing_is_graded_where_there_is_no_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ScoringFault, match="code cannot be graded here: bubblewrap is not installed"):
        CodeTests().score("def f(x): return x", REFERENCE)


def test_what_bubblewrap_says_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox_or_skip()

    def fails(*_: object) -> None:
        raise SandboxFailed("bwrap: No permissions to create new namespace")

    monkeypatch.setattr(probing, "_known", {})
    monkeypatch.setattr(probing, "_try", fails)
    missing = probe(Bubblewrap()).missing
    assert "No permissions to create new namespace" in missing
    assert "user namespaces" in missing


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"user/max_user_namespaces": "0"}, "sysctl user.max_user_namespaces=15000"),
        ({"kernel/unprivileged_userns_clone": "0"}, "sysctl kernel.unprivileged_userns_clone=1"),
        ({"kernel/apparmor_restrict_unprivileged_userns": "1"}, "AppArmor"),
        ({}, "user namespaces"),
    ],
)
def test_the_advice_names_the_setting_that_forbids_namespaces(
    settings: dict[str, str], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "_setting", settings.get)
    assert advice in probing._advice(["bwrap: setting up uid map: Permission denied"])


def test_an_interpreter_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    sandbox_or_skip()
    found = probe(Bubblewrap(python=Path("/bin/ls")))
    assert found.launcher is None
    assert "/bin/ls: it is not a Python interpreter" in found.missing


@pytest.mark.skipif(os.geteuid() != 0, reason="only a service that runs as root drops to user nobody")
def test_an_interpreter_that_user_nobody_cannot_reach_is_named(tmp_path: Path) -> None:
    sandbox_or_skip()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    python = closed / "python"
    python.write_text("#!/bin/sh\n")
    assert "closed to other users" in probe(Bubblewrap(python=python)).missing


def test_a_grader_process_does_not_find_out_again_what_the_service_found(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = sandbox_or_skip()
    settings = Bubblewrap(max_wall_s=9.0)
    for name, value in environment_for_graders(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(probing, "_known", {})
    monkeypatch.setattr(probing, "_probe", lambda _: pytest.fail("it looked again"))
    assert probe(settings).launcher == launcher


def test_what_is_preloaded_into_the_service_is_not_a_library_of_the_interpreter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """vLLM has its allocator loaded into every process that it starts; it may be in a folder that the sandbox cannot read."""
    python = Path(sys.executable)
    plain = inspect(python)
    library = next(Path(path) for path, _ in plain.shown if ".so" in Path(path).name)
    monkeypatch.setenv("LD_PRELOAD", str(shutil.copy(library, tmp_path / "preloaded.so.1")))
    assert inspect(python) == plain


def test_the_operator_may_do_without_a_sandbox_and_is_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("RATCHET_SANDBOX", NoSandbox().model_dump_json())
    with caplog.at_level(logging.WARNING, "ratchet.verifier"):
        assert CodeTests().score("def f(x): return x", REFERENCE).correct
    assert "graded code runs without a sandbox" in caplog.text
    stuck = CodeTests(wall_s=0.5).score("import time\ndef f(x): time.sleep(99)", REFERENCE)
    assert stuck.detail == "test 1 of 1: wall time over 0.5 s"
    program = {"kind": "stdio", "tests": [{"stdin": "3", "stdout": "9"}]}
    assert CodeTests().score("print(int(input()) ** 2)", program).correct
