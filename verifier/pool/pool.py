"""The grader processes and the queue before them. Whoever is stuck or crashes takes one item down, and nothing else.

Each process works on a chunk of items. A process that is at one item for far longer than usual goes on with that item
alone, at low priority, while another takes its place and the rest of its chunk. When a process ends before its item is
judged, its progress page names the item, and verifier.pool.blame says how it came. Then the reference is checked alone: if it
passes, the response was at fault and is incorrect; if not, no response could have been judged, and the verdict is error.
"""

import asyncio
import itertools
import logging
import math
from collections import OrderedDict
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from services.clock import now_s
from services.config.verifier import VerifierConfig
from services.errors import ServiceFailed
from services.wire.score import Score, Verdict
from verifier import metrics
from verifier.pool.blame import Blame, Death, blame, late_at_s
from verifier.pool.fair_queue import FairQueue
from verifier.pool.process import ForkServer, GraderProcess
from verifier.pool.protocol import Result, Task
from verifier.pool.work_item import Batch, Job

CHUNK_ITEMS = 256  # beyond it a message costs nothing compared with its items
CHUNK_CHARACTERS = 2**20
CHUNK_S = 0.05  # so much work at a time for one process, so that the others get their share of a slow batch
CAUTIOUS_ITEM_S = CHUNK_S / 8  # until measured
SLOW_S = 0.25  # an item that takes longer, and SLOW_TIMES what is usual for its grader, no longer holds up others
SLOW_TIMES = 20
LOAD_DEADLINE_S = 60.0  # importing a grader; not part of the deadline of the item that happens to come first
DEATHS = 3  # an item whose process ended so often without a culprit is not tried again
CRASHES = 2  # a response at which a process ended by itself so often did it
REMEMBERED_CHECKS = 4096

log = logging.getLogger("ratchet.verifier")


class GraderPool:
    """`async with GraderPool(...) as pool` starts the processes and kills them at the end."""

    def __init__(
        self, settings: VerifierConfig, graders: Mapping[str, str], environment: Mapping[str, str] = {}
    ) -> None:
        """graders: name -> module:class, imported in the processes only. environment: of the processes, added to ours."""
        self.graders = graders
        self._settings = settings
        self._forks = ForkServer(graders, settings.process_memory_mib * 2**20, environment)
        limits = {name: limit.processes for name, limit in settings.limits.items() if limit.processes is not None}
        self._queue: FairQueue[Job] = FairQueue(limits)
        self._arrival = asyncio.Condition()
        self._working: set[GraderProcess] = set()
        self._slow: set[GraderProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: asyncio.Future[None]
        self._chunks = itertools.count(1)
        self._mean_item_s: dict[str, float] = {}
        self._checked: OrderedDict[bytes, None] = OrderedDict()  # references that passed
        self._coming = 0  # processes being started
        self.queued_items = 0
        """Accepted and not yet judged."""

    @property
    def ready(self) -> bool:
        return bool(self._working)

    @property
    def drain_s(self) -> float:
        """Guess of how long what is queued takes, 1 to 30 s."""
        item_s = max(self._mean_item_s.values(), default=CAUTIOUS_ITEM_S)
        return min(30.0, max(1.0, self.queued_items * item_s / self._settings.processes))

    async def __aenter__(self) -> Self:
        """Raises ServiceFailed when no process can be started."""
        self._fault = asyncio.get_running_loop().create_future()
        try:
            for _ in range(self._settings.processes):
                self._working.add(await self._forks.grow())
        except BaseException:
            await self._kill_all()
            raise
        for process in list(self._working):
            self._begin(self._work(process))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._kill_all()

    async def failed(self) -> None:
        """Returns never; raises what stopped the pool's own work."""
        await asyncio.shield(self._fault)

    async def score(self, tasks: Sequence[Task], caller: str = "") -> list[Score]:
        """One score for each task, in order. Callers are served in turn."""
        if not tasks:
            return []
        batch = Batch(len(tasks))
        lines: dict[str, list[Job]] = {}
        for position, task in enumerate(tasks):
            lines.setdefault(task.grader, []).append(Job(batch, position, task, caller))
        self.queued_items += len(tasks)
        metrics.QUEUED_ITEMS.set(self.queued_items)
        async with self._arrival:
            for grader, jobs in lines.items():
                self._queue.put(caller, grader, jobs)
            self._arrival.notify_all()
        await batch.done
        return [score for score in batch.scores if score is not None]

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def over(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (fault := task.exception()) and not self._fault.done():
                self._fault.set_exception(fault)

        task.add_done_callback(over)

    async def _work(self, process: GraderProcess) -> None:
        """Give chunks to one process, for as long as it lives and holds nobody up; then see to its replacement."""
        judged = 0
        while judged < self._settings.recycle_items:
            jobs = await self._take()
            grader = jobs[0].grader
            try:
                fit = await self._grade(process, jobs)
            finally:
                self._queue.done(grader)
                await self._wake()  # whoever waits for a place of this grader
            if not fit:
                break
            judged += len(jobs)
        self._working.discard(process)
        self._slow.discard(process)
        process.kill()
        await process.ended()
        process.close()
        await self._replace()

    async def _replace(self) -> None:
        """However long it takes: while no process is there, `ready` is false and the log says why."""
        if len(self._working) + self._coming >= self._settings.processes:
            return
        self._coming += 1
        try:
            process = await self._grow()
        finally:
            self._coming -= 1
        self._working.add(process)
        self._begin(self._work(process))

    async def _grow(self) -> GraderProcess:
        for pause_s in itertools.chain((0.1, 0.3, 1.0, 3.0), itertools.repeat(10.0)):
            try:
                return await self._forks.grow()
            except (ServiceFailed, OSError) as fault:
                log.error("%s; trying again in %g s", fault, pause_s)
                await asyncio.sleep(pause_s)
        raise AssertionError("the pauses never end")

    async def _take(self) -> list[Job]:
        def size(grader: str, waiting: int) -> int:
            share = math.ceil(waiting / self._settings.processes)
            return max(1, min(share, CHUNK_ITEMS, int(CHUNK_S / self._usual_s(grader))))

        def room(jobs: list[Job]) -> bool:
            return sum(job.characters for job in jobs) < CHUNK_CHARACTERS

        async with self._arrival:
            while True:
                while (taken := self._queue.take(size, room)) is None:
                    await self._arrival.wait()
                (_, grader), jobs = taken
                wanted = [job for job in jobs if not job.batch.done.cancelled()]
                self.queued_items -= len(jobs) - len(wanted)  # nobody waits for these any more
                if wanted:
                    return wanted
                self._queue.done(grader)

    async def _wake(self) -> None:
        async with self._arrival:
            self._arrival.notify_all()

    def _usual_s(self, grader: str) -> float:
        return self._mean_item_s.get(grader, CAUTIOUS_ITEM_S)

    async def _grade(self, process: GraderProcess, jobs: list[Job]) -> bool:
        """False: the process has ended, or shall. The jobs are settled or in the queue again."""
        chunk, sent_s, received = next(self._chunks), now_s(), 0
        grader, fit = jobs[0].grader, True
        moved = range(0)  # others judge these, though their results may yet come from this process
        process.send(chunk, [job.order for job in jobs])
        receiving = asyncio.ensure_future(process.receive())
        try:
            while received < len(jobs):
                if await self._slow_at(process, receiving, chunk, jobs, sent_s, may_be_slow=fit):
                    # What came behind the slow one is for others, and so is what was judged before it and not yet sent.
                    at = max(process.progress().index, received)
                    moved = range(received, at)
                    self._requeue(jobs[received:at] + jobs[at + 1 :])
                    del jobs[at + 1 :]
                    self._step_aside(process, make_way=not jobs[at].second_look)
                    fit = False
                    continue
                results = receiving.result()
                for index, (job, result) in enumerate(zip(jobs[received:], results, strict=False), start=received):
                    fit = fit and result.outcome != "memory"  # what it took may never be given back
                    if index not in moved:
                        self._conclude(job, result)
                received += len(results)
                if received < len(jobs):
                    receiving = asyncio.ensure_future(process.receive())
        except EOFError:
            await self._bury(process, chunk, jobs, received, moved)
            return False
        finally:
            receiving.cancel()
        if fit:
            self._forks.warm_up(grader)
            usual_s, observed_s = self._usual_s(grader), max((now_s() - sent_s) / len(jobs), 1e-6)
            self._mean_item_s[grader] = usual_s + 0.3 * (observed_s - usual_s)
        return fit

    async def _slow_at(
        self,
        process: GraderProcess,
        receiving: "asyncio.Future[list[Result]]",
        chunk: int,
        jobs: list[Job],
        sent_s: float,
        *,
        may_be_slow: bool,
    ) -> bool:
        """Wait for results, or the end of the process: it is killed when its item is over the deadline. True: it is slow,
        nothing is there yet, and there is a place where it may go on."""
        deadline_s = self._settings.deadline_s(jobs[0].grader)
        slow_s = max(SLOW_S, SLOW_TIMES * self._usual_s(jobs[0].grader))
        while True:
            progress, at_s = process.progress(), now_s()
            begun = progress.chunk == chunk
            late_s = late_at_s(progress, deadline_s, LOAD_DEADLINE_S) if begun else sent_s + LOAD_DEADLINE_S
            if late_s <= at_s:
                process.kill()
                await asyncio.wait({receiving})
                return False
            look_s = min(late_s - at_s, deadline_s)
            if may_be_slow and len(self._slow) < self._settings.slow_processes:
                since_s = progress.since_s if begun and not progress.loading else at_s
                if since_s + slow_s <= at_s:
                    return True
                look_s = min(look_s, since_s + slow_s - at_s)
            # A process that was still reading or importing when it was looked at is at an item by the next look.
            done, _ = await asyncio.wait({receiving}, timeout=look_s)
            if done:
                return False

    def _step_aside(self, process: GraderProcess, *, make_way: bool) -> None:
        """It goes on with its slow item, and another process takes its place."""
        metrics.POOL_SLOW.inc()
        self._working.discard(process)
        self._slow.add(process)
        progress = process.progress()
        if make_way and process.cpu_s() - progress.since_cpu_s > (now_s() - progress.since_s) / 2:
            process.make_way()
        self._begin(self._replace())

    async def _bury(self, process: GraderProcess, chunk: int, jobs: list[Job], received: int, moved: range) -> None:
        """Settle the item at fault, and put the rest back where it came from."""
        ending = await process.ended()
        grader, progress = jobs[0].grader, process.progress()
        death = Death(chunk, received, progress, process.killed_s, process.killed_cpu_s, ending)
        fault = blame(death, self._settings.deadline_s(grader), LOAD_DEADLINE_S)
        metrics.POOL_RESTARTS.labels("crashed" if process.killed_s is None else "stuck").inc()
        log.warning("replacing a grader process (%s): %s", ending, fault.detail if fault else "no response is to blame")
        again: list[Job] = []
        for index, job in enumerate(jobs[received:], start=received):
            if index in moved:
                continue
            if fault and fault.kind == "loading":
                self._settle(job, _error(fault.detail))
            elif fault and fault.kind != "killed" and index == fault.index:
                self._accuse(job, fault, max(0.0, now_s() - progress.since_s))
            else:
                job.deaths += fault is None or index == fault.index
                if job.deaths >= DEATHS:
                    self._settle(
                        job, _error(f"{DEATHS} grader processes ended before they came to a verdict ({ending})")
                    )
                else:
                    again.append(job)
        self._requeue(again)

    def _accuse(self, job: Job, fault: Blame, elapsed_s: float) -> None:
        """The process ended, or ran out of memory, at this item."""
        if job.suspicion is not None:
            self._acquit(job, fault.detail)
        elif fault.kind == "starved":
            self._settle(job, Score(verdict="timeout", reward=None, detail=fault.detail, elapsed_s=elapsed_s))
        elif fault.kind == "unclear" and not job.second_look:
            job.second_look = True
            self._requeue([job])
        else:
            job.crashes += 1
            if fault.kind != "crashed" or job.crashes >= CRASHES:
                job.suspicion, job.elapsed_s = fault, elapsed_s
                if job.reference_key in self._checked:
                    self._convict(job)
                    return
            self._requeue([job])

    def _conclude(self, job: Job, result: Result) -> None:
        if result.outcome == "memory":
            self._accuse(job, Blame(job.position, "memory", result.detail), result.elapsed_s)
        elif job.suspicion is None:
            self._settle(job, _score(result))
        elif result.outcome == "correct":
            self._checked[job.reference_key] = None
            if len(self._checked) > REMEMBERED_CHECKS:
                self._checked.popitem(last=False)
            self._convict(job)
        else:
            self._acquit(job, result.detail)

    def _convict(self, job: Job) -> None:
        """The reference is fine, so it was the response."""
        assert job.suspicion is not None
        detail = f"{job.suspicion.detail}; its reference alone is no trouble"
        self._settle(job, Score(verdict="incorrect", reward=0.0, detail=detail, elapsed_s=job.elapsed_s))

    def _acquit(self, job: Job, detail: str) -> None:
        """The reference alone is trouble, so nothing is known about the response."""
        assert job.suspicion is not None
        self._settle(job, _error(f"{job.suspicion.detail}; its reference alone: {detail}", job.elapsed_s))

    def _requeue(self, jobs: Sequence[Job]) -> None:
        if jobs:
            self._queue.put(jobs[0].caller, jobs[0].grader, jobs, first=True)
            self._begin(self._wake())

    def _settle(self, job: Job, score: Score) -> None:
        self.queued_items -= 1
        job.batch.settle(job.position, score)
        if job.batch.unsettled == 0:
            metrics.QUEUED_ITEMS.set(self.queued_items)

    async def _kill_all(self) -> None:
        for process in (*self._working, *self._slow):
            process.kill()
        self._working.clear()
        self._slow.clear()
        self._forks.close()


def _score(result: Result) -> Score:
    if result.outcome == "error":
        return _error(result.detail, result.elapsed_s)
    verdict: Verdict = "correct" if result.outcome == "correct" else "incorrect"
    return Score(verdict=verdict, reward=result.reward, detail=result.detail, elapsed_s=result.elapsed_s)


def _error(detail: str, elapsed_s: float = 0.0) -> Score:
    return Score(verdict="error", reward=None, detail=detail, elapsed_s=elapsed_s)
