"""Grader `code`: the response is a Python program that passes the tests of the reference, in a sandbox.

The reference is {"kind": "function", "entry_point": str, "tests": [{"args": [..], "kwargs"?: {..}, "expected": any}]} or
{"kind": "stdio", "tests": [{"stdin": str, "stdout": str}]}. The entry point is the name of a function, or Class.method.
What a test expects never enters the sandbox: results come out as JSON, or as printed output, and are compared here.

Failure modes. Incorrect: a program that does not load, raises, ends early or breaks a limit, and a result that is another
value or not JSON (a set, a generator). Tuples count as lists, and keys of a dict as JSON writes them (1 as "1"); True is
not 1, and 1 is 1.0. A whole program has to end with exit code 0; white space at the end of a line or of the output does
not count. A program sees the inputs of the tests one after the other, so few and guessable inputs can be answered from a
table. A busy machine makes programs slower: leave room between what a right answer needs and `wall_s`. Error: this
machine has no sandbox, or the options are above the ceilings of [verifier.sandbox].
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec

from services.clock import now_s
from verifier.grader import Grader, Judgment, ScoringFault
from verifier.graders.code.program import program_in
from verifier.graders.code.results import same, same_output
from verifier.sandbox.launch import Launcher
from verifier.sandbox.limits import Limits, limits_within
from verifier.sandbox.probe import probe
from verifier.sandbox.session import Finished, SandboxFailed, Session, Stopped
from verifier.sandbox.settings import settings_from_environment

SHOWN_CHARACTERS = 60  # of what the program said, in the detail
SMALLEST_MEMORY_MB = 64  # the interpreter alone takes a third of it


class FunctionTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    args: list[Any]
    expected: Any
    kwargs: dict[str, Any] = {}


class FunctionReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="function"):
    entry_point: str
    tests: list[FunctionTest]


class StdioTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stdin: str
    stdout: str


class StdioReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="stdio"):
    tests: list[StdioTest]


class CodeTests(Grader, frozen=True):
    version: ClassVar[str] = "4"
    cached: ClassVar[bool] = True

    wall_s: float = 4.0
    """Seconds for loading the program, and for each test. The same limit holds for the CPU time of all its processes
    together."""
    memory_mb: int = 256
    """Memory of all its processes together."""
    pass_all: bool = True
    """If false, the reward is the share of tests passed. Either way, only a program that passes all of them is correct."""
    float_tolerance: float | None = None
    """Largest difference, relative to the larger number or absolute, at which two numbers are equal unless both are whole.
    Above 0, printed output is compared word by word. null: 1e-6 for numbers that are not whole, or that share of those below
    1, and printed output is compared line by line. 0: none."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.wall_s) and self.wall_s > 0):
            raise ScoringFault(f"option wall_s = {self.wall_s} must be above 0")
        if self.memory_mb < SMALLEST_MEMORY_MB:
            raise ScoringFault(f"option memory_mb = {self.memory_mb} is below {SMALLEST_MEMORY_MB}, which Python needs")
        if self.float_tolerance is not None and not (math.isfinite(self.float_tolerance) and self.float_tolerance >= 0):
            raise ScoringFault(f"option float_tolerance = {self.float_tolerance} must be 0 or more")

    @classmethod
    def unavailable(cls) -> str:
        """Why this machine cannot run code; empty if it can."""
        return probe(settings_from_environment()).missing

    def check(self, reference: Any) -> None:
        _read(reference)

    def score(self, response: str, reference: Any) -> Judgment:
        tests = _read(reference)
        settings = settings_from_environment()
        limits = limits_within(settings, wall_s=self.wall_s, memory_mb=self.memory_mb)
        _refuse_impossible(tests, limits)
        machine = probe(settings)
        if machine.launcher is None:
            raise ScoringFault(f"code cannot be graded here: {machine.missing}")
        try:
            entry_point = tests.entry_point if isinstance(tests, FunctionReference) else None
            return self._judge(machine.launcher, limits, program_in(response, entry_point), tests)
        except SandboxFailed as fault:
            raise ScoringFault(f"the sandbox did not start: {fault}") from fault

    def _judge(
        self, launcher: Launcher, limits: Limits, program: str, reference: FunctionReference | StdioReference
    ) -> Judgment:
        count, passed, first_fault = len(reference.tests), 0, ""
        for position, fault in enumerate(self._faults(launcher, limits, program, reference), start=1):
            if fault is None:
                passed += 1
                continue
            first_fault = first_fault or f"test {position} of {count}: {fault}"
            if self.pass_all:
                break
        if passed == count:
            return Judgment(True)
        if self.pass_all:
            return Judgment(False, first_fault)
        return Judgment(False, f"{passed} of {count} tests passed; {first_fault}", reward=passed / count)

    def _faults(
        self, launcher: Launcher, limits: Limits, program: str, reference: FunctionReference | StdioReference
    ) -> Iterator[str | None]:
        """For each test what is wrong, or None if it passes. A sandbox that had to be killed is replaced by another one.

        Waits for: the program, test after test.
        Until: wall_s for each test, and max_total_s of [verifier.sandbox] for all of them.
        Ended by: the last test, or the first fault if the caller stops there.
        Metric: ratchet_verifier_queued_items, in the service.
        """
        end_s = now_s() + limits.total_s
        remaining: Sequence[FunctionTest | StdioTest] = reference.tests
        entry_point = reference.entry_point if isinstance(reference, FunctionReference) else None
        while remaining:
            left = dataclasses.replace(limits, total_s=end_s - now_s())
            if left.total_s <= 0:
                yield f"wall time of all tests over {limits.total_s:g} s"
                return
            with Session(launcher, left) as session:
                try:
                    session.load(program, entry_point)
                except Stopped as stop:
                    yield str(stop)
                    return
                done = 0
                for test in remaining:
                    done += 1
                    try:
                        fault = self._fault(session, test)
                    except Stopped as stop:
                        yield str(stop)
                        break
                    yield fault
                remaining = remaining[done:]

    def _fault(self, session: Session, test: FunctionTest | StdioTest) -> str | None:
        if isinstance(test, StdioTest):
            return self._program_fault(session.test({"stdin": test.stdin.removeprefix("\ufeff")}), test)
        return self._function_fault(session.test({"args": test.args, "kwargs": test.kwargs}), test)

    def _function_fault(self, finished: Finished, test: FunctionTest) -> str | None:
        if finished.raised is not None:
            return f"raised {_shown(finished.raised)}"
        if finished.result is None:
            return f"ended without a result ({_ending(finished.exit_code)})"
        try:
            if same(json.loads(finished.result), test.expected, self.float_tolerance):
                return None
        except (ValueError, RecursionError):
            return "the result is not JSON that can be read"
        return f"result {_shown(finished.result)}"

    def _program_fault(self, finished: Finished, test: StdioTest) -> str | None:
        if finished.exit_code != 0:
            last_error = finished.errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
            return ": ".join(filter(None, [_ending(finished.exit_code), _shown(last_error)]))
        printed = finished.output.decode("utf-8", "replace")
        if same_output(printed, test.stdout, self.float_tolerance):
            return None
        return f"printed {_shown(repr(printed[: SHOWN_CHARACTERS + 1]))}"


def _ending(exit_code: int) -> str:
    """How a process ended, in words."""
    return f"exit code {exit_code}" if exit_code >= 0 else f"signal {-exit_code}"


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _read(reference: Any) -> FunctionReference | StdioReference:
    """Raises ScoringFault, naming the place of what is wrong."""
    try:
        read = msgspec.convert(reference, FunctionReference | StdioReference)
        json.dumps(reference, ensure_ascii=False).encode()
    except UnicodeEncodeError as fault:
        raise ScoringFault("reference: a text in it cannot be written as UTF-8") from fault
    except (msgspec.ValidationError, TypeError, ValueError, RecursionError) as fault:
        raise ScoringFault(f"reference: {fault}") from fault
    if not read.tests:
        raise ScoringFault("reference: no tests - at `$.tests`")
    if isinstance(read, FunctionReference) and not all(name.isidentifier() for name in read.entry_point.split(".")):
        raise ScoringFault(f"reference: {read.entry_point!r} is not the name of a function - at `$.entry_point`")
    return read


def _refuse_impossible(reference: FunctionReference | StdioReference, limits: Limits) -> None:
    """Raises ScoringFault for a test that every right answer would fail, because it breaks a limit."""
    in_files = limits.file_mb * 2**20, f"max_file_mb = {limits.file_mb}"
    in_output = limits.output_bytes, f"max_output_bytes = {limits.output_bytes}"
    tests: Sequence[FunctionTest | StdioTest] = reference.tests
    for position, test in enumerate(tests, start=1):
        if isinstance(test, StdioTest):
            parts = [("stdin", test.stdin, in_files), ("stdout", test.stdout, in_output)]
        else:
            parts = [("expected", json.dumps(test.expected), in_output)]
        for name, text, (most_bytes, setting) in parts:
            if len(text.encode()) > most_bytes:
                raise ScoringFault(f"{name} of test {position} is larger than {setting} of [verifier.sandbox] allows")
