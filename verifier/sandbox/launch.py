"""Starts the runner: in bubblewrap, as user nobody and with nothing of the host in sight; or bare, if the settings say so."""

import importlib.resources
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from verifier.sandbox.interpreter import Interpreter
from verifier.sandbox.limits import Limits
from verifier.sandbox.seccomp import filter_program

NOBODY = 65534
DEVICES = ("null", "zero", "full", "random", "urandom")
RUNNER = (importlib.resources.files("verifier.sandbox") / "runner.py").read_text(encoding="utf-8")
ISOLATION = (
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox"),
    *("--cap-drop", "ALL", "--as-pid-1", "--new-session", "--clearenv"),
)


@dataclass(frozen=True)
class Bwrap:
    path: str
    sizes_tmpfs: bool
    """Whether it knows --size. Without it, the size of /tmp is only checked from time to time."""


@dataclass(frozen=True)
class Launcher:
    """How graded code is run on this machine; probe.py makes it."""

    interpreter: Interpreter
    bwrap: Bwrap | None
    """None when code runs without a sandbox."""

    def start(self, limits: Limits) -> "Launched":
        """Start the process and return at once; Session waits until the sandbox is up. Raises OSError."""
        commands, commands_out = os.pipe2(os.O_CLOEXEC)
        results_in, results = os.pipe2(os.O_CLOEXEC)
        ours, theirs = [commands_out, results_in], [commands, results]
        try:
            command = self._python(limits, commands, results)
            if self.bwrap is not None:
                rules = _rules()
                if rules is not None:
                    theirs.append(rules)
                command = [*_bwrap(self.bwrap, self.interpreter, limits, rules), *command]
            drop = self.bwrap is not None and os.geteuid() == 0
            process = subprocess.Popen(
                command,
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(self.interpreter),
                cwd=tempfile.gettempdir() if self.bwrap is None else "/",
                start_new_session=True,
                # The limit on processes does not hold for root, and most walls do not hold root in.
                user=NOBODY if drop else None,
                group=NOBODY if drop else None,
                extra_groups=[] if drop else None,
            )
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        return Launched(process, commands_out, results_in)

    def _python(self, limits: Limits, commands: int, results: int) -> list[str]:
        told = {
            "memory_mb": limits.memory_mb,
            "cpu_s": ceil(limits.wall_s) + 1,  # for each process; all of them together are watched from outside
            "file_mb": limits.file_mb,
            "files": limits.files,
            "processes": limits.processes,
            "own_namespaces": self.bwrap is not None,
        }
        return [
            *(self.interpreter.executable, "-S", "-s", "-B", "-X", "utf8", "-c", RUNNER),
            *(json.dumps(told), str(commands), str(results)),
        ]


@dataclass(frozen=True)
class Launched:
    """A started runner, with our ends of its pipes."""

    process: "subprocess.Popen[bytes]"
    commands: int
    """File descriptor to write commands to."""
    results: int
    """File descriptor to read results from."""


def _environment(interpreter: Interpreter) -> dict[str, str]:
    """All environment variables that the program sees. Nothing random, so that a program always gets the same verdict."""
    return {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": interpreter.library_path,
        "MALLOC_ARENA_MAX": "1",  # each arena would take 64 MB of the address space
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PATH": "",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(interpreter.packages),
    }


def _bwrap(bwrap: Bwrap, interpreter: Interpreter, limits: Limits, rules: int | None) -> list[str]:
    sized = ("--size", str(limits.file_mb * 2**20)) if bwrap.sizes_tmpfs else ()
    variables: Mapping[str, str] = _environment(interpreter)
    return [
        *(bwrap.path, *ISOLATION),
        *(word for name, value in variables.items() for word in ("--setenv", name, value)),
        *(*sized, "--tmpfs", "/tmp"),  # first: an interpreter may live in the host's
        *(word for host, inside in interpreter.shown for word in ("--ro-bind", host, inside)),
        *(word for folder in interpreter.hidden for word in ("--tmpfs", folder, "--remount-ro", folder)),
        # No /proc and no /sys: Python needs neither, and a container could not mount them again.
        *(word for name in DEVICES for word in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")),
        *("--symlink", "/tmp", "/dev/shm"),
        *("--remount-ro", "/", "--chdir", "/tmp"),
        *(("--seccomp", str(rules)) if rules is not None else ()),
        "--",
    ]


def _rules() -> int | None:
    """A file descriptor to read the seccomp program from; None if this architecture has no program."""
    program = filter_program()
    if program is None:
        return None
    rules, rules_in = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(rules_in, "wb") as file:
        file.write(program)  # 2 KB, less than a pipe holds
    return rules
