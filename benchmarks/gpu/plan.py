"""Which steps each program takes, in order of value, and how long each may last."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One process of the check."""

    name: str
    work: str
    """module:function in benchmarks.gpu."""
    argument: str = ""
    limit_s: float = 60.0
    environment: dict[str, str] = field(default_factory=dict)


HEARTBEAT = {"TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC": "20"}
"""What the default group's monitor waits before it ends a process in which a watchdog saw a failure; 480 s by default."""

NEED_MODELS = ("profile", "scoring", "attention", "weights")

PLAN: list[list[Step]] = [
    # Steps of one list run at the same time; what is timed runs alone.
    [Step("versions", "models:versions")],
    [
        Step("models", "models:models", "0.5B,1.5B", 100),
        Step("watchdog", "collective:watchdog", "", 110, HEARTBEAT),
        Step("absent", "collective:absent", "", 70),
        Step("members", "members:members", "", 110, HEARTBEAT),
    ],
    [Step("streams", "streams:streams")],
    [Step("profile 0.5B", "profiled:profiled", "0.5B,4096,1", 80)],
    [Step("scoring 0.5B", "scoring:scoring", "0.5B,4096", 60)],
    [Step("profile 1.5B", "profiled:profiled", "1.5B,4096,4,checkpointing", 90)],
    [Step("attention 0.5B", "attention:attention", "0.5B,4096", 25)],
    [Step("attention 1.5B", "attention:attention", "1.5B,16384", 40)],
    [Step("head", "head:head", "", 50)],
    [Step("weights", "weights:weights", "0.5B,1.5B", 60)],
]


LEARNER: list[list[Step]] = [
    [Step("versions", "models:versions")],
    [Step("models", "models:models", "0.6B,1.7B,4B", 100)],
    [Step("1.7B rows of 16k", "learner:learner", "1.7B,16384,65536,1024", 90)],
    [Step("1.7B kept", "learner:learner", "1.7B,16384,65536,1024,kept", 60)],
    [Step("1.7B others", "learner:others", "1.7B,65536,1024", 120)],
    [Step("0.6B rows of 4k", "learner:learner", "0.6B,4096,65536,1024", 60)],
    [Step("1.7B rows of 4k", "learner:learner", "1.7B,4096,65536,1024", 60)],
    [Step("1.7B rows of 32k", "learner:learner", "1.7B,32768,65536,8192", 60)],
    [Step("4B rows of 16k", "learner:learner", "4B,16384,65536,1024", 90)],
    [Step("0.6B others", "learner:others", "0.6B,65536,1024", 90)],
]
"""A learner step on models of three sizes, and what others do with the same sequences."""

PROGRAMS = {"check": PLAN, "learner": LEARNER}


def chosen(words: str, plan: list[list[Step]] = PLAN) -> list[list[Step]]:
    """The steps whose name begins with one of these words, by comma, and those that they need; all of them for ""."""
    beginnings = tuple(words.split(",")) if words else ("",)
    names = {step.name for together in plan for step in together if step.name.startswith(beginnings)}
    if plan is LEARNER or any(name.startswith(NEED_MODELS) for name in names):
        names.add("models")
    lists = [[step for step in together if step.name in names] for together in plan]
    return [together for together in lists if together]
