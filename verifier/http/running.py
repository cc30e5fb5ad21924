"""POST /v1/run: a program of a policy in, what it printed out. It runs in the sandbox, as graded code does; nothing is kept."""

import asyncio
import math
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response

from services.config.verifier import VerifierConfig
from verifier import metrics
from verifier.contract import MalformedRequest, Refusal
from verifier.grader import ScoringFault
from verifier.http.scoring import read_json, refuse
from verifier.sandbox.cells import Ran, run_cells
from verifier.sandbox.limits import Limits, limits_within
from verifier.sandbox.probe import probe
from verifier.sandbox.session import SandboxFailed

WAITING_FOR_EACH = 16
"""Programs that may wait for each one that runs; more are refused."""

_encoder = msgspec.json.Encoder()


class RunRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program, and those that run before it."""

    code: str
    earlier: list[str] = []
    """Programs that run before it, in the same process; what they print is left out, and what they raise too."""
    wall_s: float = 5.0
    """Seconds for all of them together."""
    memory_mb: int = 256


_decoder = msgspec.json.Decoder(RunRequest)


def add_running(app: FastAPI, settings: VerifierConfig) -> None:
    programs = _Programs(settings)

    @app.post("/v1/run", summary="Run a program in the sandbox", response_class=Response, openapi_extra=_operation())
    async def run(request: Request) -> Response:
        """What it printed, its exit code, and the limit that it broke, if it broke one."""
        body = await read_json(request, settings)
        if isinstance(body, Response):
            return body
        try:
            asked, limits = _read(body, settings)
        except MalformedRequest as malformed:
            return refuse(422, malformed.refusal.error, malformed.refusal.path)
        if programs.waiting >= settings.grader_processes * WAITING_FOR_EACH:
            return refuse(
                503, f"{programs.waiting} programs wait", headers={"Retry-After": str(math.ceil(limits.wall_s))}
            )
        try:
            ran = await programs.run(asked, limits)
        except (SandboxFailed, ScoringFault) as fault:
            return refuse(500, f"the sandbox did not run it: {fault}")
        return Response(_encoder.encode(ran._asdict()), media_type="application/json")


class _Programs:
    """Those that run now, as many at a time as there are grader processes."""

    def __init__(self, settings: VerifierConfig) -> None:
        self._settings = settings
        self._room = asyncio.Semaphore(settings.grader_processes)
        self._tasks: set[asyncio.Task[Ran]] = set()
        self.waiting = 0

    async def run(self, asked: RunRequest, limits: Limits) -> Ran:
        """Run it when there is room. Raises ScoringFault or SandboxFailed where this machine has no sandbox.

        Waits for: programs before it, then its own.
        Until: as many programs as may wait take their wall_s.
        Ended by: the end of the program, or a limit that it breaks.
        Metric: ratchet_verifier_running_programs.
        """
        # To its end, whoever leaves meanwhile: a thread cannot be cancelled, and the limits end it.
        task = asyncio.create_task(self._in_turn(asked, limits))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _in_turn(self, asked: RunRequest, limits: Limits) -> Ran:
        self.waiting += 1
        try:
            await self._room.acquire()
        finally:
            self.waiting -= 1
        try:
            with metrics.RUNNING_PROGRAMS.track_inprogress():
                return await asyncio.to_thread(self._run, asked, limits)
        finally:
            self._room.release()

    def _run(self, asked: RunRequest, limits: Limits) -> Ran:
        machine = probe(self._settings.sandbox)
        if machine.launcher is None:
            raise ScoringFault(machine.missing)
        return run_cells(machine.launcher, limits, asked.earlier, asked.code)


def _read(body: bytes | bytearray, settings: VerifierConfig) -> tuple[RunRequest, Limits]:
    """Raises MalformedRequest with the path of the fault."""
    try:
        asked = _decoder.decode(body)
        for text in (asked.code, *asked.earlier):
            text.encode()
    except UnicodeEncodeError:
        raise MalformedRequest("a text in it cannot be written as UTF-8", "$") from None
    except msgspec.ValidationError as fault:
        said, _, path = str(fault).rpartition(" - at `")
        raise MalformedRequest(said or str(fault), path.rstrip("`") or "$") from fault
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise MalformedRequest(f"the body is not JSON: {fault}", "$") from fault
    if not asked.wall_s > 0 or asked.memory_mb < 64:
        raise MalformedRequest("wall_s has to be above 0, and memory_mb at least 64, which Python needs", "$")
    try:
        return asked, limits_within(settings.sandbox, wall_s=asked.wall_s, memory_mb=asked.memory_mb)
    except ScoringFault as fault:
        raise MalformedRequest(str(fault), "$") from fault


def _operation() -> dict[str, Any]:
    """What the documentation page says of it."""
    (_, refusal), schemas = msgspec.json.schema_components(
        (RunRequest, Refusal), ref_template="#/components/schemas/{name}"
    )
    answer = {
        "type": "object",
        "required": ["output", "errors", "exit_code", "fault"],
        "properties": {
            "output": {"type": "string"},
            "errors": {"type": "string"},
            "exit_code": {"type": "integer"},
            "fault": {"type": "string"},
        },
    }
    refusals = {
        "401": "The service requires a bearer token, and this request has none of its tokens",
        "408": "The body took too long to come",
        "413": "More bytes than the service takes in one request",
        "415": "The body is of another content type than JSON",
        "422": "A malformed request, or limits above those of [verifier.sandbox]; `path` says where",
        "431": "Too many headers, or too large ones",
        "500": "This machine has no sandbox",
        "503": "Saturated; come back after the seconds in Retry-After",
    }

    def content(schema: dict[str, Any]) -> dict[str, Any]:
        return {"application/json": {"schema": schema}}

    return {
        "requestBody": {"required": True, "content": content(schemas["RunRequest"])},
        "responses": {
            "200": {"description": "How the program ended", "content": content(answer)},
            **{status: {"description": text, "content": content(refusal)} for status, text in refusals.items()},
        },
    }
