"""Which checkpoints of a run are the best, by the evaluation of the weights that they hold."""

from pathlib import Path
from typing import Literal, NamedTuple

from services.run.checkpoint_names import checkpoints_in, policy_version_of
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.summary import newest

Metric = Literal["avg_at_k", "pass_at_k"]
"""A figure of an evaluation; more is better."""


class Judged(NamedTuple):
    """A checkpoint and what the evaluation of its policy version came to."""

    accuracy: float
    checkpoint: Path


def best_checkpoints(run: RunFolder, metric: Metric) -> list[Judged]:
    """The checkpoints on the disk whose policy version was evaluated, the best first; of equal ones the newer."""
    rows = newest(read_json_lines(run.evaluations), "policy_version")
    accuracy = {row["policy_version"]: row[metric] for row in rows if row[metric] is not None}
    judged = [
        Judged(accuracy[version], checkpoint)
        for checkpoint in checkpoints_in(run.checkpoints)
        if (version := policy_version_of(checkpoint)) in accuracy
    ]
    return sorted(judged, reverse=True)
