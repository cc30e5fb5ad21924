"""[deadlines]: how long each wait may last, in seconds. No wait is without one."""

from pydantic import Field

from services.config.base import Strict


class DeadlinesConfig(Strict):
    redis_s: float = Field(default=30.0, gt=0)
    """A command to Redis, retries included."""
    engine_start_s: float = Field(default=900.0, gt=0)
    """From the start of a replica until its engine answers."""
    first_replica_s: float = Field(default=1200.0, gt=0)
    """The learner waits so long for a replica to register, and goes on so long while none takes its weights."""
    groups_s: float = Field(default=1800.0, gt=0)
    """The learner waits so long for the groups of a step."""
    evaluation_s: float = Field(default=1800.0, gt=0)
    weight_join_s: float = Field(default=60.0, gt=0)
    """Forming the process group of a generation."""
    weight_transfer_s: float = Field(default=120.0, gt=0)
    """Broadcasting one policy version, swap and proof included."""
    lease_s: float = Field(default=15.0, gt=0)
    """A replica that has not renewed its lease by then is out of the process group."""
    reclaim_idle_s: float = Field(default=60.0, gt=0)
    """A claim that was not renewed by then goes to another worker."""
    shutdown_s: float = Field(default=60.0, gt=0)
    """A service asked to stop is killed after it."""
