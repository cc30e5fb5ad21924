"""[price]: what the hardware costs, for the dashboards."""

from pydantic import Field

from services.config.base import Strict


class PriceConfig(Strict):
    """What the hardware costs. It changes nothing in a run: dashboards show the cost of a million tokens."""

    gpu_hour: float | None = Field(default=None, gt=0)
    """Price of one GPU for an hour, in any currency; on a CPU machine, of one learner rank or engine worker. Learner ranks and
    the workers of all replicas are counted: where two of them share a GPU, give half of its price. Without it no cost is
    shown."""
