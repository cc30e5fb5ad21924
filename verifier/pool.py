"""The grader processes and the queue before them. Whoever is stuck or crashes takes one item down, and nothing else.

Each process works on a chunk of items. When it ends before the chunk does, its progress page names the item it was at:
that one gets `timeout` or `error`, what it had not sent goes to the front of the queue, and another process takes its
place. When nobody can be named (it was killed from outside between two chunks), all of the chunk is graded again.
"""

import asyncio
import itertools
import logging
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from services.clock import now_s
from services.errors import ServiceFailed
from services.graders import GRADERS
from services.wire.score import Score, Verdict
from verifier import metrics
from verifier.blame import Deadlines, Death, blame
from verifier.pipe import Result, Task
from verifier.process import GraderProcess

CHUNK_ITEMS = 256  # beyond it a message costs nothing compared with its items
CHUNK_CHARACTERS = 2**20
CHUNK_S = 0.05  # so much work at a time for one process, so that the others get their share of a slow batch
CAUTIOUS_ITEM_S = CHUNK_S / 8  # until measured, and again after a process was stuck
LOAD_DEADLINE_S = 60.0  # importing a grader; not part of the deadline of the item that happens to come first
DEATHS = 3  # an item whose process ended so often without a culprit is not tried again

log = logging.getLogger("ratchet.verifier")


class Batch:
    """What one caller waits for."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.scores: list[Score | None] = [None] * len(tasks)
        self.unsettled = len(tasks)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Job:
    """One item of a batch on its way through the pool."""

    __slots__ = ("batch", "deaths", "position", "task")

    def __init__(self, batch: Batch, position: int, task: Task) -> None:
        self.batch, self.position, self.task = batch, position, task
        self.deaths = 0


class GraderPool:
    """`async with GraderPool(...) as pool` starts the processes and kills them at the end."""

    def __init__(self, processes: int, item_deadline_s: float, graders: Mapping[str, str] = GRADERS) -> None:
        """graders: name -> module:class, imported in the processes only."""
        self.graders = graders
        self._count, self._deadlines = processes, Deadlines(item_deadline_s, LOAD_DEADLINE_S)
        self._queue: deque[Job] = deque()
        self._arrival = asyncio.Event()
        self._running: set[GraderProcess] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._chunk = 0
        self._mean_item_s = CAUTIOUS_ITEM_S
        self.queued_items = 0
        """Accepted and not yet judged."""

    @property
    def ready(self) -> bool:
        return bool(self._running)

    @property
    def drain_s(self) -> float:
        """Guess of how long what is queued takes, 1 to 30 s."""
        return min(30.0, max(1.0, self.queued_items * self._mean_item_s / self._count))

    async def __aenter__(self) -> Self:
        """Raises ServiceFailed when no process can be started."""
        starts = [GraderProcess.start(self.graders) for _ in range(self._count)]
        started = await asyncio.gather(*starts, return_exceptions=True)
        self._running = {process for process in started if isinstance(process, GraderProcess)}
        for fault in started:
            if isinstance(fault, BaseException):
                await self._kill_all()
                raise fault
        self._keepers = [asyncio.create_task(self._keep(process)) for process in self._running]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await self._kill_all()

    async def failed(self) -> None:
        """Returns never; raises what stopped the pool's own work."""
        done, _ = await asyncio.wait(self._keepers, return_when=asyncio.FIRST_COMPLETED)
        done.pop().result()

    async def score(self, tasks: Sequence[Task]) -> list[Score]:
        """One score for each task, in order. However long one takes, each is judged within its deadline or `timeout`."""
        if not tasks:
            return []
        batch = Batch(tasks)
        self._queue.extend(Job(batch, position, task) for position, task in enumerate(tasks))
        self.queued_items += len(tasks)
        metrics.QUEUED_ITEMS.set(self.queued_items)
        self._arrival.set()
        await batch.done
        scores = [score for score in batch.scores if score is not None]
        verdicts = Counter((score.verdict, task.grader) for score, task in zip(scores, tasks, strict=True))
        for labels, count in verdicts.items():
            metrics.SCORES.labels(*labels).inc(count)
        for score in scores:
            metrics.SCORE_SECONDS.observe(score.elapsed_s)
        return scores

    async def _keep(self, process: GraderProcess) -> None:
        """Give chunks to one process, and to the one that takes its place, for ever."""
        while True:
            jobs = await self._take()
            if not await self._grade(process, jobs):
                self._running.discard(process)
                process = await self._replacement()
                self._running.add(process)

    async def _take(self) -> list[Job]:
        while not self._queue:
            self._arrival.clear()
            await self._arrival.wait()
        share = math.ceil(len(self._queue) / self._count)
        size = max(1, min(share, CHUNK_ITEMS, int(CHUNK_S / self._mean_item_s)))
        jobs = [self._queue.popleft()]
        characters = len(jobs[0].task.response)
        while self._queue and len(jobs) < size and characters < CHUNK_CHARACTERS:
            jobs.append(self._queue.popleft())
            characters += len(jobs[-1].task.response)
        return jobs

    async def _grade(self, process: GraderProcess, jobs: list[Job]) -> bool:
        """False: the process has ended. The jobs are settled or in the queue again."""
        self._chunk += 1
        chunk, sent_s, received = self._chunk, now_s(), 0
        process.send(chunk, [job.task for job in jobs])
        while received < len(jobs):
            try:
                results = await self._receive(process, chunk, sent_s)
            except EOFError:
                await self._bury(process, chunk, jobs, received)
                return False
            for job, result in zip(jobs[received:], results, strict=False):
                self._settle(job, _score(result))
            received += len(results)
        observed_s = (now_s() - sent_s) / len(jobs)
        self._mean_item_s += 0.3 * (max(observed_s, 1e-6) - self._mean_item_s)
        return True

    async def _receive(self, process: GraderProcess, chunk: int, sent_s: float) -> list[Result]:
        """The next results; a process whose item is over its deadline is killed, after which its pipe ends."""
        receiving = asyncio.ensure_future(process.receive())
        try:
            while True:
                progress = process.progress()
                begun = progress.chunk == chunk
                late_at_s = self._deadlines.late_at_s(progress) if begun else sent_s + self._deadlines.load_s
                if late_at_s <= now_s():
                    process.kill()
                    return await receiving
                # A process that was still reading or importing when it was looked at is at an item by the next look.
                look_s = min(late_at_s - now_s(), self._deadlines.item_s)
                done, _ = await asyncio.wait({receiving}, timeout=look_s)
                if done:
                    return receiving.result()
        finally:
            receiving.cancel()

    async def _bury(self, process: GraderProcess, chunk: int, jobs: list[Job], received: int) -> None:
        """Settle the item at fault, and put the rest back where it came from."""
        ending = await process.ended()
        process_progress, self._mean_item_s = process.progress(), CAUTIOUS_ITEM_S
        fault = blame(Death(chunk, received, process_progress, process.killed_s, ending), self._deadlines)
        metrics.POOL_RESTARTS.labels("crashed" if process.killed_s is None else "stuck").inc()
        log.warning("replacing a grader process (%s): %s", ending, fault.detail if fault else "no response is to blame")
        again: list[Job] = []
        for index, job in enumerate(jobs[received:], start=received):
            job.deaths += fault is None
            if fault and (
                index == fault.index or (fault.whole_grader and job.task.grader == jobs[fault.index].task.grader)
            ):
                elapsed_s = max(0.0, now_s() - process_progress.since_s)
                self._settle(job, Score(verdict=fault.verdict, reward=None, detail=fault.detail, elapsed_s=elapsed_s))
            elif job.deaths >= DEATHS:
                detail = f"{DEATHS} grader processes ended before they came to this response ({ending})"
                self._settle(job, Score(verdict="error", reward=None, detail=detail, elapsed_s=0.0))
            else:
                again.append(job)
        self._queue.extendleft(reversed(again))
        self._arrival.set()

    async def _replacement(self) -> GraderProcess:
        """However long it takes: while no process is there, `ready` is false and the log says why."""
        for pause_s in itertools.chain((0.1, 0.3, 1.0, 3.0), itertools.repeat(10.0)):
            try:
                return await GraderProcess.start(self.graders)
            except (ServiceFailed, OSError) as fault:
                log.error("%s; trying again in %g s", fault, pause_s)
                await asyncio.sleep(pause_s)
        raise AssertionError("the pauses never end")

    async def _kill_all(self) -> None:
        for process in self._running:
            process.kill()
        await asyncio.gather(*(process.ended() for process in self._running))
        self._running.clear()

    def _settle(self, job: Job, score: Score) -> None:
        batch = job.batch
        batch.scores[job.position] = score
        batch.unsettled -= 1
        self.queued_items -= 1
        if batch.unsettled == 0:
            metrics.QUEUED_ITEMS.set(self.queued_items)
            if not batch.done.done():
                batch.done.set_result(None)


def _score(result: Result) -> Score:
    if result.correct is None:
        return Score(verdict="error", reward=None, detail=result.detail, elapsed_s=result.elapsed_s)
    verdict: Verdict = "correct" if result.correct else "incorrect"
    return Score(verdict=verdict, reward=float(result.correct), detail=result.detail, elapsed_s=result.elapsed_s)
