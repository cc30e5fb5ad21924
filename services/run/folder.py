"""The names of every file and folder of a run."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run: runs_folder/name."""

    path: Path

    @property
    def lock(self) -> Path:
        """Held by the command that uses the folder."""
        return self.path / ".lock"

    @property
    def identity(self) -> Path:
        """A name that no other run has, which the run's keys in Redis bear as well."""
        return self.path / ".identity"

    @property
    def learner_lock(self) -> Path:
        """Held by the learner that uses the folder."""
        return self.path / ".learner.lock"

    @property
    def evaluation_mark(self) -> Path:
        """Present when the folder belongs to `ratchet eval`, so that the next evaluation may empty it."""
        return self.path / ".evaluation"

    @property
    def settings(self) -> Path:
        """The resolved settings that this run's services were started with."""
        return self.path / "settings.toml"

    @property
    def redis(self) -> Path:
        """The data and the log of the run's own Redis server."""
        return self.path / "redis"

    @property
    def redis_url(self) -> Path:
        """The URL of the run's own Redis server while it runs, password included: for this user alone."""
        return self.path / ".redis-url"

    @property
    def logs(self) -> Path:
        """One log for each service."""
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        """The newest checkpoints, a folder each."""
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        """The trained model in the Hugging Face layout."""
        return self.path / "export"

    @property
    def steps(self) -> Path:
        """One JSON line for each learner step."""
        return self.path / "steps.jsonl"

    @property
    def settled(self) -> Path:
        """What became of each group: a JSON line for each start, step and checkpoint of the learner."""
        return self.path / "settled.jsonl"

    @property
    def step_in_hand(self) -> Path:
        """The groups of the learner's step that has begun and not ended."""
        return self.path / "step_in_hand.json"

    @property
    def left_out(self) -> Path:
        """The rows that the check before the start has left out, for the learner."""
        return self.path / "left_out.json"

    @property
    def waiting(self) -> Path:
        """What the learner waits for before its next step, written again every few seconds."""
        return self.path / "waiting.json"

    @property
    def syncs(self) -> Path:
        """One JSON line for each weight broadcast."""
        return self.path / "syncs.jsonl"

    @property
    def evaluations(self) -> Path:
        """One JSON line for each evaluation."""
        return self.path / "evaluations.jsonl"

    @property
    def dead(self) -> Path:
        """One JSON line for each group that was found dead."""
        return self.path / "dead.jsonl"

    @property
    def requeued(self) -> Path:
        """One JSON line for each dead group that somebody sent round again."""
        return self.path / "requeued.jsonl"

    @property
    def groups(self) -> Path:
        """The newest groups, a file for each learner step."""
        return self.path / "groups"

    @property
    def replay(self) -> Path:
        """The newest steps with all that they consumed, for `ratchet replay`."""
        return self.path / "replay"

    @property
    def page_token(self) -> Path:
        """What opens the live page: for this user alone."""
        return self.path / ".page-token"

    @property
    def tensorboard(self) -> Path:
        """The figures of steps and evaluations as TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def tracking_id(self) -> Path:
        """The name under which trackers know this run, so that a resumed one goes on in the same place."""
        return self.path / "tracking_id"

    @property
    def summary(self) -> Path:
        """What the run came to, as JSON."""
        return self.path / "summary.json"

    @property
    def picture(self) -> Path:
        """The learning curve."""
        return self.path / "learning_curve.png"

    @property
    def services(self) -> Path:
        """Addresses of the services that `ratchet up` started, for `ratchet status`."""
        return self.path / "services"
