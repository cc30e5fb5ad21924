"""Finds out once whether this machine has a sandbox that works, or else what is missing and what to do about it."""

import logging
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec

from services.clock import now_s
from services.config.sandbox import Bubblewrap, NoSandbox
from verifier.sandbox.interpreter import candidates, inspect
from verifier.sandbox.launch import Bwrap, Launcher
from verifier.sandbox.limits import limits_within
from verifier.sandbox.seccomp import filter_program
from verifier.sandbox.session import SandboxFailed, Session, Stopped
from verifier.sandbox.settings import for_environment, settings_from_environment

FOUND_VARIABLE = "RATCHET_SANDBOX_FOUND"
AGAIN_S = 30.0  # then a machine that may only have been busy gets another chance
TRIAL = "def double(number):\n    return 2 * number\n"
TRIAL_MEMORY_MB = 128

log = logging.getLogger("ratchet.verifier")


@dataclass(frozen=True)
class Probe:
    launcher: Launcher | None
    """None when no code can be graded."""
    missing: str
    """Why no code can be graded, and what to do; empty otherwise."""
    warnings: tuple[str, ...] = ()


_known: dict[Bubblewrap | NoSandbox, tuple[float, Probe]] = {}


def probe(settings: Bubblewrap | NoSandbox) -> Probe:
    """Run a small program the way graded code is run. Takes about half a second, and nothing once the answer is known.

    Waits for: each candidate interpreter and its sandbox.
    Until: QUESTION_S for asking an interpreter, START_S for its sandbox, and max_wall_s for the trial program.
    Ended by: the first sandbox that works, or the last candidate.
    Metric: none; it is asked before the service says that it is healthy, and in a grader process counts as part of its item.
    """
    found_s, known = _known.get(settings, (0.0, None))
    if known is None or (known.launcher is None and now_s() - found_s > AGAIN_S):
        known = _inherited(settings) or _probe(settings)
        for warning in known.warnings:
            log.warning(warning)
        _known[settings] = now_s(), known
    return known


def environment_for_graders(settings: Bubblewrap | NoSandbox) -> dict[str, str]:
    """Variables with the settings and what a probe with them found, so that grader processes need no probe of their own."""
    environment = for_environment(settings)
    launcher = probe(settings).launcher
    if launcher is not None:
        environment[FOUND_VARIABLE] = msgspec.json.encode(launcher).decode()
    return environment


def _inherited(settings: Bubblewrap | NoSandbox) -> Probe | None:
    """What the process that set both variables found; None without them, or for other settings."""
    found = os.environ.get(FOUND_VARIABLE)
    if not found or settings_from_environment() != settings:
        return None
    return Probe(msgspec.json.decode(found, type=Launcher), "")


def _probe(settings: Bubblewrap | NoSandbox) -> Probe:
    bwrap, warnings = None, []
    if isinstance(settings, NoSandbox):
        warnings.append('graded code runs without a sandbox, as this service itself: [verifier.sandbox] type = "none"')
    else:
        path = shutil.which("bwrap")
        if path is None:
            return Probe(
                None, "bubblewrap is not installed; install the package bubblewrap (apt-get install bubblewrap)"
            )
        bwrap = Bwrap(path, sizes_tmpfs=_version(path) >= (0, 8))
        if filter_program() is None:
            warnings.append(f"no list of system calls for {os.uname().machine}: the sandbox runs without seccomp")
    reasons = []
    for python in candidates(settings.python):
        try:
            if bwrap is not None and os.geteuid() == 0:
                _refuse_closed_folders(python)
            launcher = Launcher(inspect(python), bwrap)
            _try(launcher, settings)
        except (OSError, ValueError, SandboxFailed, Stopped) as fault:
            reasons.append(f"with {python}: {fault}")
            continue
        return Probe(launcher, "", tuple(warnings))
    return Probe(None, _advice(reasons), tuple(warnings))


def _refuse_closed_folders(python: Path) -> None:
    """Raises ValueError for an interpreter that user nobody cannot reach: the sandbox of a service of root runs as nobody."""
    for path in (python.resolve(), *python.resolve().parents):
        if not path.stat().st_mode & stat.S_IXOTH:
            raise ValueError(f"{path} is closed to other users than its owner")


def _try(launcher: Launcher, settings: Bubblewrap | NoSandbox) -> None:
    """Raises SandboxFailed or Stopped when a program that cannot fail does."""
    limits = limits_within(settings, wall_s=settings.max_wall_s, memory_mb=min(TRIAL_MEMORY_MB, settings.max_memory_mb))
    with Session(launcher, limits) as session:
        session.load(TRIAL, "double")
        finished = session.test({"args": [21], "kwargs": {}})
    if finished.result != "42":
        raise SandboxFailed(f"a trial program failed: {finished.raised or f'exit code {finished.exit_code}'}")


def _advice(reasons: list[str]) -> str:
    """What bubblewrap said, and what to do about it."""
    said = "; ".join(reasons)
    advice = "set [verifier.sandbox] python to an interpreter that every user of the machine can read"
    if re.search(r"namespace|uid map|Failed RTM_|/ slave|setgroups|pivot_root|Operation not permitted", said):
        advice = _namespace_advice()
    return f"the sandbox does not work: {said}. To do: {advice}"


def _namespace_advice() -> str:
    if _setting("user/max_user_namespaces") == "0":
        return "allow user namespaces: sysctl user.max_user_namespaces=15000"
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1"
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "let AppArmor allow them to bwrap, with the profile in docs/sandbox.md, "
            "or to all: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")) or os.getenv(
        "KUBERNETES_SERVICE_HOST"
    ):
        return (
            "start this container so that it may make user namespaces and mount in them: "
            "security_opt seccomp=unconfined (or the profile in docs/sandbox.md) and apparmor=unconfined"
        )
    return "allow unprivileged user namespaces to this user; docs/sandbox.md lists what can forbid them"


def _setting(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _version(bwrap: str) -> tuple[int, ...]:
    try:
        said = subprocess.run([bwrap, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(int(number) for number in re.findall(r"\d+", said)[:3])
