"""The grader processes and the queue before them. A process that is stuck or crashes takes one item down, and nothing else.

Each process works on a chunk of items. A process that is at one item for far longer than usual goes on with that item
alone, at low priority, while another takes its place and the rest of its chunk. When a process ends before its item is
judged, its progress page names the item, blame.py says how it ended, and attribution.py what becomes of the item.
"""

import asyncio
import itertools
import logging
import math
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from services.clock import now_s
from services.config.verifier import VerifierConfig
from services.errors import ServiceFailed
from services.metrics import waiting
from services.wire.verdict import Score
from verifier import metrics
from verifier.contract import ScoreItem
from verifier.pool.attribution import Attribution
from verifier.pool.blame import Death, Finding, blame, late_at_s
from verifier.pool.fair_queue import FairQueue
from verifier.pool.forks import ForkServer
from verifier.pool.process import GraderProcess
from verifier.pool.protocol import GradeResult
from verifier.pool.work_item import Batch, WorkItem
from verifier.scores import no_verdict

CHUNK_ITEMS = 256  # beyond it a message costs nothing compared with its items
CHUNK_CHARACTERS = 2**20
CHUNK_S = 0.05  # expected work in a chunk: small, so that the other processes get their share of a slow batch
CAUTIOUS_ITEM_S = CHUNK_S / 8  # until measured
SLOW_S = 0.25  # an item that takes longer, and SLOW_TIMES what is usual for its grader, no longer holds up others
SLOW_TIMES = 20
LOAD_DEADLINE_S = 60.0  # importing a grader; not part of the deadline of the item that happens to come first

log = logging.getLogger("ratchet.verifier")


class GraderPool:
    """`async with GraderPool(...) as pool` starts the processes and kills them at the end."""

    def __init__(
        self, settings: VerifierConfig, graders: Mapping[str, str], environment: Mapping[str, str] = {}
    ) -> None:
        """graders: name -> module:class, imported only in the processes. environment: added to ours in the processes."""
        self._settings = settings
        self._forks = ForkServer(graders, settings.process_memory_mib * 2**20, environment)
        limits = {name: limit.processes for name, limit in settings.limits.items() if limit.processes is not None}
        self._queue: FairQueue[WorkItem] = FairQueue(limits)
        self._arrival = asyncio.Condition()
        self.working: set[GraderProcess] = set()
        """Processes that take chunks."""
        self.slow: set[GraderProcess] = set()
        """Processes that finish one slow item and take no more."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: asyncio.Future[None]
        self._chunks = itertools.count(1)
        self._mean_item_s: dict[str, float] = {}
        self._attribution = Attribution()
        self._coming = 0  # processes being started
        self.queued_items = 0
        """Accepted and not yet judged."""

    @property
    def ready(self) -> bool:
        return bool(self.working)

    @property
    def drain_s(self) -> float:
        """Estimate of how long the queue takes, 1 to 30 s."""
        item_s = max(self._mean_item_s.values(), default=CAUTIOUS_ITEM_S)
        return min(30.0, max(1.0, self.queued_items * item_s / self._settings.grader_processes))

    async def __aenter__(self) -> Self:
        """Starts the processes. Raises ServiceFailed when one cannot be started.

        Waits for: the grader processes, one after the other.
        Until: forks.START_DEADLINE_S for each.
        Ended by: every process being up, or one failing to start.
        Metric: ratchet_waiting{room="verifier", awaiting="grader process"}.
        """
        self._fault = asyncio.get_running_loop().create_future()
        try:
            for _ in range(self._settings.grader_processes):
                self.working.add(await self._forks.grow())
        except BaseException:
            await self._kill_all()
            raise
        for process in list(self.working):
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
        """Never returns; raises what stopped the pool's own work.

        Waits for: a defect of the pool.
        Until: it is stopped.
        Ended by: an exception in the pool's own tasks, or cancellation.
        Metric: none: nothing waits for it to happen.
        """
        await asyncio.shield(self._fault)

    async def score(self, items: Sequence[ScoreItem], caller: str = "") -> list[Score]:
        """One score for each item, in order. Callers are served in turn.

        Waits for: the grader processes.
        Until: each item has its grader's deadline, and may be tried again after it; there is no deadline for the batch.
        Ended by: a score for every item, or cancellation by the caller.
        Metric: ratchet_verifier_queued_items.
        """
        if not items:
            return []
        batch = Batch(len(items))
        lines: dict[str, list[WorkItem]] = {}
        for position, item in enumerate(items):
            lines.setdefault(item.grader, []).append(WorkItem(batch, position, item, caller))
        self.queued_items += len(items)
        metrics.QUEUED_ITEMS.set(self.queued_items)
        async with self._arrival:
            for grader, work in lines.items():
                self._queue.put(caller, grader, work)
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
        """Gives chunks to one process for as long as it lives and holds nothing up; then sees to its replacement."""
        judged = 0
        while judged < self._settings.recycle_items:
            chunk = await self._take()
            grader = chunk[0].grader
            try:
                fit = await self._grade(process, chunk)
            finally:
                self._queue.done(grader)
                await self._wake()  # those that wait for a place of this grader
            if not fit:
                break
            judged += len(chunk)
        self.working.discard(process)
        self.slow.discard(process)
        process.kill()
        try:
            await process.ended()
        finally:  # also when the pool ends meanwhile
            process.close()
        await self._replace()

    async def _replace(self) -> None:
        """Starts another process, however long it takes: while there is none, `ready` is false and the log says why."""
        if len(self.working) + self._coming >= self._settings.grader_processes:
            return
        self._coming += 1
        try:
            process = await self._grow()
        finally:
            self._coming -= 1
        self.working.add(process)
        self._begin(self._work(process))

    async def _grow(self) -> GraderProcess:
        """Tries to start a process until it succeeds.

        Waits for: the fork server and the new process, and the pauses between attempts.
        Until: it is stopped.
        Ended by: a process that is up, or cancellation.
        Metric: ratchet_waiting{room="verifier", awaiting="grader process"}; /readyz answers 503 while there is none.
        """
        for pause_s in itertools.chain((0.1, 0.3, 1.0, 3.0), itertools.repeat(10.0)):
            try:
                return await self._forks.grow()
            except (ServiceFailed, OSError) as fault:
                log.error("%s; trying again in %g s", fault, pause_s)
                with waiting("verifier", "grader process"):
                    await asyncio.sleep(pause_s)
        raise AssertionError("the pauses never end")

    async def _take(self) -> list[WorkItem]:
        """The next chunk for one process.

        Waits for: items that a process may take.
        Until: it is stopped.
        Ended by: the arrival of items, a free place of a grader, or cancellation.
        Metric: ratchet_waiting{room="verifier", awaiting="responses"}: the number of idle grader processes.
        """

        def size(grader: str, waiting_items: int) -> int:
            share = math.ceil(waiting_items / self._settings.grader_processes)
            return max(1, min(share, CHUNK_ITEMS, int(CHUNK_S / self._usual_s(grader))))

        def room(chunk: list[WorkItem]) -> bool:
            return sum(item.characters for item in chunk) < CHUNK_CHARACTERS

        async with self._arrival:
            while True:
                while (chunk := self._queue.take(size, room)) is None:
                    with waiting("verifier", "responses"):
                        await self._arrival.wait()
                wanted = [item for item in chunk if not item.batch.done.cancelled()]
                self.queued_items -= len(chunk) - len(wanted)  # their caller has given up
                if wanted:
                    return wanted
                self._queue.done(chunk[0].grader)

    async def _wake(self) -> None:
        async with self._arrival:
            self._arrival.notify_all()

    def _usual_s(self, grader: str) -> float:
        return self._mean_item_s.get(grader, CAUTIOUS_ITEM_S)

    async def _grade(self, process: GraderProcess, items: list[WorkItem]) -> bool:
        """Has a chunk graded; its items are then settled or in the queue again. False: the process has ended, or is to."""
        chunk, sent_s, received = next(self._chunks), now_s(), 0
        grader, fit = items[0].grader, True
        moved = range(0)  # other processes judge these, though results for them may yet come from this one
        process.send(chunk, [item.task for item in items])
        receiving = asyncio.ensure_future(process.receive())
        try:
            while received < len(items):
                if await self._slow_at(process, receiving, chunk, items, sent_s, may_be_slow=fit):
                    # The items behind the slow one go to others, and so do those judged before it but not yet sent.
                    at = max(process.progress().index, received)
                    moved = range(received, at)
                    self._requeue(items[received:at] + items[at + 1 :])
                    del items[at + 1 :]
                    self._step_aside(process, lower_priority=not items[at].second_look)
                    fit = False
                    continue
                results = receiving.result()
                for index, (item, result) in enumerate(zip(items[received:], results, strict=False), start=received):
                    fit = fit and not result.out_of_memory  # the memory it took may never be given back
                    if index not in moved:
                        self._settle_or_requeue(item, self._attribution.result(item, result))
                received += len(results)
                if received < len(items):
                    receiving = asyncio.ensure_future(process.receive())
        except EOFError:
            unjudged = [(index, items[index]) for index in range(received, len(items)) if index not in moved]
            await self._after_end(process, chunk, received, unjudged, grader)
            return False
        finally:
            receiving.cancel()
        if fit:
            self._forks.warm_up(grader)
            usual_s, observed_s = self._usual_s(grader), max((now_s() - sent_s) / len(items), 1e-6)
            self._mean_item_s[grader] = usual_s + 0.3 * (observed_s - usual_s)
        return fit

    async def _slow_at(
        self,
        process: GraderProcess,
        receiving: "asyncio.Future[list[GradeResult]]",
        chunk: int,
        items: list[WorkItem],
        sent_s: float,
        *,
        may_be_slow: bool,
    ) -> bool:
        """True when the process is slow, has sent nothing yet, and there is a place where it may go on.

        Waits for: results of the process, or its end.
        Until: verifier.item_deadline_s or the grader's own deadline, per item; then the process is killed.
        Ended by: results, the end of the process, its deadline, or a slow item.
        Metric: ratchet_verifier_queued_items; ratchet_verifier_pool_slow_total counts the slow ones.
        """
        deadline_s = self._settings.deadline_s(items[0].grader)
        slow_s = max(SLOW_S, SLOW_TIMES * self._usual_s(items[0].grader))
        while True:
            progress, at_s = process.progress(), now_s()
            begun = progress.chunk == chunk
            late_s = late_at_s(progress, deadline_s, LOAD_DEADLINE_S) if begun else sent_s + LOAD_DEADLINE_S
            if late_s <= at_s:
                process.kill()
                await asyncio.wait({receiving})
                return False
            look_s = min(late_s - at_s, deadline_s)
            if may_be_slow and len(self.slow) < self._settings.slow_processes:
                since_s = progress.since_s if begun and not progress.loading else at_s
                if since_s + slow_s <= at_s:
                    return True
                look_s = min(look_s, since_s + slow_s - at_s)
            # A process that was still reading or importing when it was looked at is at an item by the next look.
            done, _ = await asyncio.wait({receiving}, timeout=look_s)
            if done:
                return False

    def _step_aside(self, process: GraderProcess, *, lower_priority: bool) -> None:
        """The process goes on with its slow item, and another takes its place."""
        metrics.POOL_SLOW.inc()
        self.working.discard(process)
        self.slow.add(process)
        progress = process.progress()
        if lower_priority and process.cpu_s() - progress.since_cpu_s > (now_s() - progress.since_s) / 2:
            process.lower_priority()
        self._begin(self._replace())

    async def _after_end(
        self,
        process: GraderProcess,
        chunk: int,
        received: int,
        unjudged: Sequence[tuple[int, WorkItem]],
        grader: str,
    ) -> None:
        """Deals with the item at fault for the end of a process, and puts the others back into the queue.

        received: results of the chunk that had arrived. unjudged: its other items, each with its place in the chunk.
        """
        ending = await process.ended()
        progress = process.progress()
        death = Death(chunk, received, progress, process.killed_s, process.killed_cpu_s, ending)
        finding = blame(death, self._settings.deadline_s(grader), LOAD_DEADLINE_S)
        metrics.POOL_RESTARTS.labels("crashed" if process.killed_s is None else "stuck").inc()
        what = finding.detail if finding else "no response is to blame"
        log.warning("replacing a grader process (%s): %s", ending, what)
        again: list[WorkItem] = []
        for index, item in unjudged:
            if finding is not None and finding.kind == "loading":
                self._settle(item, no_verdict(finding.detail))
            elif finding is not None and _is_at_fault(finding, index):
                elapsed_s = max(0.0, now_s() - progress.since_s)
                self._settle_or_requeue(item, self._attribution.at_fault(item, finding, elapsed_s))
            elif finding is not None and index != finding.index:
                again.append(item)
            elif (score := self._attribution.unexplained(item, ending)) is not None:
                self._settle(item, score)
            else:
                again.append(item)
        self._requeue(again)

    def _settle_or_requeue(self, item: WorkItem, score: Score | None) -> None:
        if score is None:
            self._requeue([item])
        else:
            self._settle(item, score)

    def _requeue(self, items: Sequence[WorkItem]) -> None:
        if items:
            self._queue.put(items[0].caller, items[0].grader, items, first=True)
            self._begin(self._wake())

    def _settle(self, item: WorkItem, score: Score) -> None:
        self.queued_items -= 1
        item.batch.settle(item.position, score)
        if item.batch.unsettled == 0:
            metrics.QUEUED_ITEMS.set(self.queued_items)

    async def _kill_all(self) -> None:
        for process in (*self.working, *self.slow):
            process.kill()
            process.close()
        self.working.clear()
        self.slow.clear()
        self._forks.close()


def _is_at_fault(finding: Finding, index: int) -> bool:
    return finding.kind != "killed" and index == finding.index
