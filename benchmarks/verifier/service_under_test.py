"""The verifier as a process of its own, with any settings, and what /proc tells about it and its children.

    with service({"processes": 2, "cache": {"type": "none"}}) as verifier: ...

It is what `python -m verifier` runs, with all of [verifier] to choose from and no Redis. Needs Linux.
"""

import argparse
import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from services import entry
from services.config.verifier import VerifierConfig
from services.run.addresses import addresses, announce_address
from services.run.json_text import json_text
from verifier.cache import MemoryShelf
from verifier.service import serve

ROOT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 120.0
STOP_DEADLINE_S = 40.0
PR_SET_CHILD_SUBREAPER = 36
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PACKAGES = ("math-verify", "sympy", "uvicorn", "httpx")


@dataclass(frozen=True)
class Verifier:
    url: str
    process: "subprocess.Popen[bytes]"
    scratch: Path
    """Its TMPDIR, which no other process uses."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def fork_server(self) -> int | None:
        """The child from which its grader processes come; None while it has none."""
        servers = [pid for pid in children(self.pid) if "verifier.pool.fork_server" in command_of(pid)]
        return servers[0] if servers else None

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.scratch)) for path in self.scratch.rglob("*"))


@contextmanager
def service(settings: Mapping[str, Any]) -> Iterator[Verifier]:
    """Ready to score; stopped at the end as an operator would, and killed should that not help."""
    with tempfile.TemporaryDirectory() as folder:
        scratch, announced = Path(folder, "tmp"), Path(folder, "services")
        scratch.mkdir()
        command = [sys.executable, "-m", "benchmarks.verifier.service_under_test"]
        command += ["--settings", json.dumps(settings), "--services-folder", str(announced)]
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(scratch)}, stderr=log)
        try:
            end_s = time.monotonic() + START_DEADLINE_S
            while not (announced.exists() and (found := addresses(announced))):
                if process.poll() is not None or time.monotonic() > end_s:
                    raise SystemExit(f"the verifier did not start: {Path(folder, 'log').read_text()[-2000:]}")
                time.sleep(0.05)
            yield Verifier(found["verifier"], process, scratch)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_DEADLINE_S)
            process.kill()
            process.wait()


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Whatever the verifier's processes leave behind becomes a child of this process, where it can be counted."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Alive or not yet reaped; of all its threads."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (task / "children").read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [below for child in found for below in descendants(child)]


def command_of(pid: int) -> str:
    """Empty: it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_bytes(pid: int) -> int:
    """0: it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    return 0


def write_report(name: str, report: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json_text({**report, "machine": machine(PACKAGES)}, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, help="[verifier] as JSON")
    parser.add_argument("--services-folder", type=Path, required=True)
    arguments = parser.parse_args()
    entry.start_logging()
    asyncio.run(_serve(VerifierConfig.model_validate_json(arguments.settings), arguments.services_folder))
    return entry.DONE


async def _serve(settings: VerifierConfig, services_folder: Path) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    shelf = None if settings.cache.type == "none" else MemoryShelf(settings.cache.max_entries)

    def on_ready(url: str) -> None:
        announce_address(services_folder, "verifier", url)

    await serve(settings, streams=None, stop=stop, on_ready=on_ready, shelf=shelf)


if __name__ == "__main__":
    entry.end(main)
