"""Which Python runs the graded programs, and the files of the host that it needs: all that the sandbox shows of the host."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 9)  # os.waitstatus_to_exitcode
QUESTION_S = 30.0
# Modules for a terminal or a display; their libraries would make up half of the files shown.
WITHOUT = ("_tkinter", "_curses", "readline", "_dbm", "_gdbm", "nis")
QUESTION = """
import json, os, sys, sysconfig
paths = sysconfig.get_paths()
folders = {paths["stdlib"], paths["platstdlib"]}
if sys.prefix != sys.base_prefix:
    folders |= {paths["purelib"], paths["platlib"]}
print(json.dumps({
    "version": list(sys.version_info[:2]),
    "executable": os.path.realpath(sys.executable),
    "packages": [] if sys.prefix == sys.base_prefix else [paths["purelib"], paths["platlib"]],
    "folders": sorted(os.path.realpath(folder) for folder in folders),
    "dynload": os.path.join(paths["platstdlib"], "lib-dynload"),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    executable: str
    shown: tuple[tuple[str, str], ...]
    """Pairs of a path on the host and its path in the sandbox, where it is read-only."""
    hidden: tuple[str, ...]
    """Folders within those shown that stay out of sight."""
    library_path: str
    """The folders of the shared libraries, for LD_LIBRARY_PATH."""
    packages: tuple[str, ...]
    """Folders with the packages of the virtual environment, if the interpreter belongs to one."""


def candidates(chosen: Path | None) -> list[Path]:
    """Interpreters to try, best first."""
    if chosen is not None:
        return [chosen]
    ours = Path(os.path.realpath(sys.executable))
    system = [Path("/usr/local/bin/python3"), Path("/usr/bin/python3")]
    return list(dict.fromkeys([ours, *(path for path in system if path.exists())]))


def inspect(python: Path) -> Interpreter:
    """Ask an interpreter about itself. Raises ValueError, saying why, when it cannot be used. Takes about 0.3 s.

    Waits for: the interpreter, and ldd.
    Until: QUESTION_S for each of them.
    Ended by: their exit, or the deadline, which kills the process.
    Metric: none; it is asked before the service says that it is healthy.
    """
    try:
        answer = _run([str(python), "-I", "-c", QUESTION])
        found = json.loads(answer.stdout)
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise ValueError(f"it does not run: {fault}") from fault
    except ValueError as fault:
        raise ValueError(f"it is not a Python interpreter (exit code {answer.returncode})") from fault
    if tuple(found["version"]) < OLDEST:
        raise ValueError(f"it is Python {'.'.join(map(str, found['version']))}; 3.9 is the oldest that will do")
    binaries = [found["executable"]]
    for folder in {found["dynload"], *found["packages"]}:
        binaries += [str(path) for path in sorted(Path(folder).rglob("*.so")) if not path.name.startswith(WITHOUT)]
    libraries = _libraries(binaries)
    shown = {folder: folder for folder in found["folders"]} | {found["executable"]: found["executable"]}
    hidden = [
        os.path.join(folder, name)
        for folder in found["folders"]
        for name in ("site-packages", "dist-packages")
        if os.path.isdir(os.path.join(folder, name)) and os.path.join(folder, name) not in found["packages"]
    ]
    shown |= {path: path for path in libraries if not any(path.startswith(f"{folder}/") for folder in shown)}
    return Interpreter(
        executable=found["executable"],
        shown=tuple(shown.items()),
        hidden=tuple(hidden),
        library_path=":".join(dict.fromkeys(os.path.dirname(path) for path in libraries)),
        packages=tuple(found["packages"]),
    )


def _libraries(binaries: list[str]) -> list[str]:
    """The shared libraries that the binaries load, and the loader, under the names by which they are looked up."""
    try:
        listing = _run(["ldd", *binaries]).stdout
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise ValueError(f"ldd, which lists shared libraries, does not run: {fault}") from fault
    libraries = []
    for line in listing.splitlines():
        words = line.split()
        if not words or words[0].endswith(":"):
            continue
        path = words[2] if "=>" in words and len(words) > 2 else words[0]
        if path.startswith("/"):
            libraries.append(path)
    return list(dict.fromkeys(libraries))


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    # What is preloaded into this process, such as vLLM's allocator, is not a library of the interpreter.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=QUESTION_S,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment,
    )
