"""The kept groups, filtered. A file is read when somebody looks for groups, and what the list shows of it is remembered."""

import threading
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from services.run.kept_groups import KeptGroup, kept_steps, read_step

MOST_LISTED = 200
PROMPT_CHARACTERS = 120


class Filter(BaseModel, frozen=True):
    """Which groups are asked for; None: any."""

    step_from: int | None = None
    step_to: int | None = None
    reward_from: float | None = None
    """For the mean of the group's rewards."""
    reward_to: float | None = None
    verdict: str | None = None
    """The verdict of at least one response; `mixed`: the responses have different ones."""
    length_from: int | None = None
    """For the longest response, in tokens."""
    lag_from: int | None = None
    """For the oldest token, in steps."""
    outcome: str | None = None
    """`trained`, or `dropped`."""

    def takes(self, row: dict[str, Any]) -> bool:
        verdicts = row["verdicts"]
        return (
            (self.step_from is None or row["step"] >= self.step_from)
            and (self.step_to is None or row["step"] <= self.step_to)
            and (self.reward_from is None or (row["reward"] is not None and row["reward"] >= self.reward_from))
            and (self.reward_to is None or (row["reward"] is not None and row["reward"] <= self.reward_to))
            and (not self.verdict or (len(verdicts) > 1 if self.verdict == "mixed" else self.verdict in verdicts))
            and (self.length_from is None or row["longest"] >= self.length_from)
            and (self.lag_from is None or row["lag"] >= self.lag_from)
            and (not self.outcome or (row["dropped"] is None) == (self.outcome == "trained"))
        )


class Groups:
    """The groups in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[Path, tuple[int, list[dict[str, Any]]]] = {}
        self._guard = threading.Lock()

    def find(self, wanted: Filter) -> dict[str, Any]:
        """Those that the filter takes, the newest first, and how many there are."""
        with self._guard:
            paths = kept_steps(self._folder)
            for path in self._rows.keys() - set(paths):
                del self._rows[path]
            rows = [row for path in reversed(paths) for row in self._of(path) if wanted.takes(row)]
        return {"found": len(rows), "steps": len(paths), "rows": rows[:MOST_LISTED]}

    def one(self, step: int, group_id: str) -> KeptGroup | None:
        """The group with this id that this step consumed; None if it is not kept."""
        # The name is looked for among those that are there: what a request says never becomes a path.
        path = next((one for one in kept_steps(self._folder) if one.name == f"step-{step:08d}.jsonl.gz"), None)
        groups = [] if path is None else read_step(path)
        return next((group for group in groups if group.group_id == group_id), None)

    def _of(self, path: Path) -> list[dict[str, Any]]:
        try:
            written = path.stat().st_mtime_ns
        except FileNotFoundError:
            return []
        known = self._rows.get(path)
        if known is None or known[0] != written:
            known = written, [_row(group) for group in read_step(path)]
            self._rows[path] = known
        return known[1]


def _row(group: KeptGroup) -> dict[str, Any]:
    responses = group.responses
    rewards = [one.reward for one in responses if one.reward is not None]
    verdicts: dict[str, int] = {}
    for one in responses:
        verdicts[one.verdict] = verdicts.get(one.verdict, 0) + 1
    oldest = min((span[0] for one in responses for span in one.spans), default=group.step - 1)
    return {
        "step": group.step,
        "group": group.group_id,
        "prompt": group.prompt[-PROMPT_CHARACTERS:],
        "reward": round(sum(rewards) / len(rewards), 4) if rewards else None,
        "verdicts": verdicts,
        "longest": max((len(one.token_ids) for one in responses), default=0),
        "lag": group.step - 1 - oldest,
        "dropped": group.dropped,
    }
