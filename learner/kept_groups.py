"""Keeps the newest groups for the page's inspector, on a thread of its own. Losing one loses nothing that the run needs."""

import itertools
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from learner.intake.gathering import Gathered
from learner.ranks import SeenTokens
from services.run.kept_groups import KeptGroup, KeptResponse, KeptWords, write_step
from services.wire.score import ScoredGroup
from services.wire.trajectory import Trajectory
from services.wire.verdict import Score

log = logging.getLogger("ratchet.learner")

STEPS_IN_HAND = 2
"""Steps that may lie here unwritten; further ones are not kept, so that a slow disk holds nothing up."""
if TYPE_CHECKING:
    Figures = np.ndarray[Any, Any]


class KeptGroups:
    """Takes the groups of each step from the training loop, which never waits for it."""

    def __init__(self, folder: Path, limit_mib: int, text_of: Callable[[Sequence[int]], str]) -> None:
        """text_of: the text of some tokens, special ones included; called on the thread."""
        self._folder = folder
        self._limit_bytes = limit_mib * 2**20
        self._text_of = text_of
        self._pieces: dict[int, str] = {}
        self._todo: queue.Queue[tuple[int, Gathered, SeenTokens | None] | None] = queue.Queue(STEPS_IN_HAND)
        self._thread = threading.Thread(target=self._run, name="kept-groups", daemon=True)
        self._thread.start()

    def offer(self, step: int, gathered: Gathered, seen: SeenTokens | None) -> bool:
        """Keep what a step consumed, if there is time; returns whether there is. step: the version that the step made."""
        try:
            self._todo.put_nowait((step, gathered, seen))
        except queue.Full:
            return False
        return True

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what was taken.

        Waits for: the thread.
        Until: timeout_s.
        Ended by: the end of the thread, or the deadline; then what it was writing is lost.
        Metric: none; the run is over.
        """
        try:
            self._todo.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _run(self) -> None:
        """Write step after step.

        Waits for: the next step of the training loop.
        Until: there is no deadline.
        Ended by: a step, or `close`.
        Metric: none; nothing waits for this thread.
        """
        while (taken := self._todo.get()) is not None:
            step, gathered, seen = taken
            try:
                write_step(self._folder, step, self._groups(step, gathered, seen), self._limit_bytes)
            except OSError as fault:
                log.warning("the groups of step %d are not kept for the page: %s", step, fault)

    def _groups(self, step: int, gathered: Gathered, seen: SeenTokens | None) -> Iterator[KeptGroup]:
        """Those that reached the loss and those that did not, by turns, so that both are there where not all fit."""
        columns = _columns(gathered, seen)
        in_loss = {group.prompt.group_id for group in gathered.kept}
        trained = [group for group in gathered.groups if group.group.prompt.group_id in in_loss]
        others = [group for group in gathered.groups if group.group.prompt.group_id not in in_loss]
        for pair in itertools.zip_longest(trained, others):
            for group in filter(None, pair):
                is_in = group.group.prompt.group_id in in_loss
                yield self._group(
                    step, group, None if is_in else gathered.drops.get(group.group.prompt.group_id, ""), columns
                )

    def _group(
        self, step: int, scored: ScoredGroup, dropped: str | None, columns: "dict[int, tuple[Figures, Figures]]"
    ) -> KeptGroup:
        prompt = scored.group.prompt
        token_ids = prompt.token_ids.numpy().tolist()
        pairs = zip(scored.group.trajectories, scored.scores, strict=True)
        return KeptGroup(
            step=step,
            group_id=prompt.group_id,
            row=prompt.row,
            replica_id=scored.group.replica_id,
            verifier_id=scored.verifier_id,
            grader=prompt.grader,
            reference=prompt.reference,
            temperature=prompt.temperature,
            dropped=dropped,
            prompt=self._text_of(token_ids),
            prompt_tokens=len(token_ids),
            responses=[self._response(one, score, columns.get(id(one))) for one, score in pairs],
        )

    def _response(
        self, trajectory: Trajectory, score: Score, columns: "tuple[Figures, Figures] | None"
    ) -> KeptResponse:
        token_ids = trajectory.token_ids.numpy().tolist()
        return KeptResponse(
            token_ids=token_ids,
            pieces=[self._piece(one) for one in token_ids],
            text=trajectory.text,
            finish_reason=trajectory.finish_reason,
            verdict=score.verdict,
            reward=score.reward,
            detail=score.detail,
            grading_s=score.elapsed_s,
            spans=[(span.policy_version, span.start, span.end) for span in trajectory.spans],
            behavior_logp=_figures(trajectory.behavior_logp.numpy()),
            current_logp=None if columns is None else _figures(columns[0]),
            one_way_weight=None if columns is None else _figures(columns[1]),
            words=list(self._words(trajectory)),
        )

    def _words(self, trajectory: Trajectory) -> Iterator[KeptWords]:
        before = 0
        for turn in trajectory.turns:
            text = self._text_of(turn.given.numpy().tolist())
            yield KeptWords(before=before, text=text, restarts=turn.restarts, reward=turn.reward)
            before += turn.tokens

    def _piece(self, token_id: int) -> str:
        if token_id not in self._pieces:
            self._pieces[token_id] = self._text_of([token_id])
        return self._pieces[token_id]


def _columns(gathered: Gathered, seen: SeenTokens | None) -> "dict[int, tuple[Figures, Figures]]":
    """id of a trajectory in the loss -> its current log-probs and one-way weights, in the order of `batch_of`."""
    if seen is None:
        return {}
    logp, weight = seen.current_logp.numpy(), seen.one_way_weight.numpy()
    found, start = {}, 0
    for group in gathered.kept:
        for sequence in group.kept:
            end = start + len(sequence.trajectory)
            found[id(sequence.trajectory)] = logp[start:end], weight[start:end]
            start = end
    return found


def _figures(values: "Figures") -> list[float | None]:
    """Four digits after the point; null in the file where a figure is not finite."""
    rounded: list[float | None] = np.round(np.asarray(values, dtype=np.float64), 4).tolist()
    return rounded
