"""Where a run keeps what, and the names its streams have."""

from dataclasses import dataclass
from pathlib import Path

EVALUATION_PROMPTS, PROMPTS, TRAJECTORIES, SCORED, DEAD = (
    "evaluation_prompts",
    "prompts",
    "trajectories",
    "scored",
    "dead",
)


@dataclass(frozen=True)
class RunFolder:
    """runs_folder/name."""

    path: Path

    @property
    def lock(self) -> Path:
        """Held by the command that uses the folder."""
        return self.path / ".lock"

    @property
    def evaluation_mark(self) -> Path:
        """There when the folder is that of `ratchet eval`, and may be emptied by the next one."""
        return self.path / ".evaluation"

    @property
    def settings(self) -> Path:
        """The resolved settings that the services of this run were started with."""
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
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        """The trained model in the Hugging Face layout."""
        return self.path / "export"

    @property
    def steps(self) -> Path:
        """A JSON line a learner step."""
        return self.path / "steps.jsonl"

    @property
    def syncs(self) -> Path:
        """A JSON line a weight broadcast."""
        return self.path / "syncs.jsonl"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def picture(self) -> Path:
        return self.path / "learning_curve.png"

    @property
    def services(self) -> Path:
        """Addresses of what `ratchet up` started, for `ratchet status`."""
        return self.path / "services"
