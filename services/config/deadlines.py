"""[deadlines]: how long each wait may last, in seconds. No wait is without a deadline."""

from typing import Annotated

from pydantic import Field

from services.config.base import Strict
from services.config.effect import OnlyWith


class DeadlinesConfig(Strict):
    """How long each wait may last, in seconds. Raise the one that an error names if what it waits for is only slow."""

    redis_s: float = Field(default=30.0, gt=0)
    """Seconds that one command to Redis may take, retries included. Raise it if Redis restarts take longer."""
    engine_start_s: float = Field(default=900.0, gt=0)
    """Seconds from the start of a replica until its engine answers. Raise it for large models on slow disks."""
    first_replica_s: float = Field(default=1200.0, gt=0)
    """Seconds that the learner waits for a replica to register, or to take its weights, before it gives up. It has to be
    longer than an engine takes to start."""
    groups_s: float = Field(default=1800.0, gt=0)
    """Seconds that the learner waits for the groups of a step. Raise it when sampling and scoring one step take longer."""
    evaluation_s: Annotated[float, OnlyWith("evaluation")] = Field(default=1800.0, gt=0)
    """Seconds that the learner waits for all results of an evaluation. Raise it for large held-out sets."""
    weight_join_s: float = Field(default=60.0, gt=0)
    """Seconds in which all members of a generation have to meet in the process group of the weights."""
    weight_transfer_s: float = Field(default=120.0, gt=0)
    """Seconds in which one policy version has to be broadcast, swapped in and proved equal at every replica. Raise it for
    large models on a slow network."""
    weight_patience_s: float = Field(default=5.0, gt=0)
    """Seconds by which a replica may take longer than half of the group to join it or to confirm a version. After that the
    learner goes on without it, and the replica catches up by itself. Raise it when engines differ much in speed."""
    lease_s: float = Field(default=5.0, gt=0)
    """Seconds after which a replica that has not renewed its lease leaves the process group, and its prompts go to others.
    Replicas renew three times as often. Raise it when busy hosts lose their leases; lower it to notice dead replicas sooner."""
    reclaim_idle_s: float = Field(default=60.0, gt=0)
    """Seconds after which a claimed group that was not renewed goes to another worker. Workers renew three times as often."""
    shutdown_s: float = Field(default=60.0, gt=0)
    """Seconds that the learner may take to stop cleanly, with a checkpoint, before it is killed. Raise it if a checkpoint takes
    longer. `ratchet up` gives the other services 5 seconds, all of them together: they keep nothing."""
