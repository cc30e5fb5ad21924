"""Whether the response, its reference answer or the machine pays for a grader process that ended: the score, or another try.

Pure bookkeeping. Each function returns the item's score, or None when the item goes back into the queue. A response is
blamed only after its reference answer alone has passed the grader's check.
"""

from collections import OrderedDict

from services.wire.verdict import Score
from verifier.pool.blame import Finding
from verifier.pool.protocol import GradeResult
from verifier.pool.work_item import WorkItem
from verifier.scores import no_verdict

UNEXPLAINED_ENDS = 3  # an item whose process ended this often with nothing at fault is not tried again
CRASHES = 2  # a response at which a process ended by itself this often caused it
REMEMBERED_REFERENCES = 4096


class Attribution:
    def __init__(self) -> None:
        self._passed: OrderedDict[bytes, None] = OrderedDict()  # reference answers that passed their check

    def result(self, item: WorkItem, result: GradeResult) -> Score | None:
        """A process has answered."""
        if result.out_of_memory:
            finding = Finding(item.position, "memory", result.score.detail)
            return self.at_fault(item, finding, result.score.elapsed_s)
        if item.finding is None:
            return result.score
        if result.score.verdict != "correct":
            return _blame_reference(item, item.finding, result.score.detail)
        self._passed[item.reference_key] = None
        if len(self._passed) > REMEMBERED_REFERENCES:
            self._passed.popitem(last=False)
        return _blame_response(item, item.finding)

    def at_fault(self, item: WorkItem, finding: Finding, elapsed_s: float) -> Score | None:
        """A process ended, or ran out of memory, at this item. elapsed_s: how long it had worked on it."""
        if item.finding is not None:
            return _blame_reference(item, item.finding, finding.detail)
        if finding.kind == "starved":
            return Score(verdict="timeout", reward=None, detail=finding.detail, elapsed_s=elapsed_s)
        if finding.kind == "unclear" and not item.second_look:
            item.second_look = True
            return None
        item.crashes += 1
        if finding.kind == "crashed" and item.crashes < CRASHES:
            return None
        return self._check_reference_first(item, finding, elapsed_s)

    def unexplained(self, item: WorkItem, ending: str) -> Score | None:
        """A process ended at or before this item, and nothing is at fault. ending: for example "signal SIGKILL"."""
        item.unexplained_ends += 1
        if item.unexplained_ends < UNEXPLAINED_ENDS:
            return None
        return no_verdict(f"{UNEXPLAINED_ENDS} grader processes ended before they came to a verdict ({ending})")

    def _check_reference_first(self, item: WorkItem, finding: Finding, elapsed_s: float) -> Score | None:
        item.finding = finding
        item.elapsed_s = elapsed_s
        return _blame_response(item, finding) if item.reference_key in self._passed else None


def _blame_response(item: WorkItem, finding: Finding) -> Score:
    """The reference answer is fine, so the response did it."""
    detail = f"{finding.detail}; its reference alone is fine"
    return Score(verdict="incorrect", reward=0.0, detail=detail, elapsed_s=item.elapsed_s)


def _blame_reference(item: WorkItem, finding: Finding, detail: str) -> Score:
    """The reference answer alone fails, so nothing is known about the response."""
    return no_verdict(f"{finding.detail}; its reference alone: {detail}", item.elapsed_s)
