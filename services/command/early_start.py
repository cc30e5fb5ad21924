"""Processes of services that import what they need while the run is still being checked (services/early.py)."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import msgspec

from services.config import RunConfig
from services.config.load import render
from services.early import ASKED_VARIABLE, SETTINGS_VARIABLE, Word


class EarlyProcess:
    """One process that waits for its word."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], question: str | None = None) -> None:
        """command: without the arguments, which come with the word. environment: all that it has until then. question: a
        function of the settings that it is to call when it has its imports, as module:function; it returns bytes."""
        self.command = list(command)
        told = dict(environment)
        self._answer: BinaryIO | None = None
        kept: tuple[int, ...] = ()
        if question is not None:
            reading, writing = os.pipe()
            self._answer = os.fdopen(reading, "rb")
            told[ASKED_VARIABLE] = f"{question} {writing}"
            kept = (writing,)
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=told,
            pass_fds=kept,
            start_new_session=True,  # Ctrl-C is for `ratchet up`, which ends it
        )
        for descriptor in kept:
            os.close(descriptor)

    @property
    def pid(self) -> int | None:
        """Its process id while it waits."""
        return self._process.pid if self._process is not None else None

    def is_waiting(self) -> bool:
        """Whether it lives and was told nothing yet."""
        return self._process is not None and self._process.poll() is None

    def answer(self) -> bytes:
        """What the function has returned; b"" where there was no question, or the process ended without an answer.

        Waits for: the process, which imports what it needs, and then for the function.
        Until: that returns; what it waits for has deadlines of its own.
        Ended by: its answer, or the end of the process, which closes the pipe.
        Metric: none; no service has begun.
        """
        if self._answer is None:
            return b""
        with self._answer as pipe:
            return pipe.read()

    def go(
        self, arguments: Sequence[str], environment: Mapping[str, str], log_path: Path
    ) -> subprocess.Popen[bytes] | None:
        """Let it work; its process from now on. None if it has ended: what ended it shows when it is started in the usual way."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return None
        word = Word(list(arguments), dict(environment), str(log_path.resolve()))
        try:
            with process.stdin as pipe:
                pipe.write(msgspec.json.encode(word) + b"\n")
        except BrokenPipeError:
            pass  # it has ended; whoever called starts it in the usual way
        return process if process.poll() is None else None

    def cancel(self) -> None:
        """End it, if it is still waiting."""
        if self._answer is not None:
            self._answer.close()
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def started_early(
    config: RunConfig,
    commands: Mapping[str, tuple[Sequence[str], Mapping[str, str]]],
    questions: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[dict[str, EarlyProcess]]:
    """Processes by the name of their service, which end with this block unless they were told to go.

    commands: command and environment of each. questions: what some of them are asked (see EarlyProcess).
    """
    with tempfile.TemporaryDirectory(prefix="ratchet-") as folder:  # of this user alone: settings may hold a password
        settings = Path(folder) / "settings.toml"
        settings.write_text(render(config), encoding="utf-8")
        early: dict[str, EarlyProcess] = {}
        try:
            for name, (command, environment) in commands.items():
                early[name] = EarlyProcess(
                    command, {**environment, SETTINGS_VARIABLE: str(settings)}, questions.get(name)
                )
            yield early
        finally:
            for process in early.values():
                process.cancel()
