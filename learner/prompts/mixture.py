"""Which source the next prompt comes from: by weights that the settings give, or that group DRO learns.

Prompts are shared out by smooth weighted round robin: each source earns its share with every prompt, the one that has earned
most gets it and pays 1. So after any number of prompts each source has had its share of them to within the number of
sources, and nothing is random.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from services.config.samplers import GroupDroMixture, WeightsMixture


class Mixture:
    """K sources."""

    def __init__(self, settings: WeightsMixture | GroupDroMixture, weights: Sequence[float]) -> None:
        """weights: the sources' own, above 0."""
        total = math.fsum(weights)
        self._own = [weight / total for weight in weights]
        self._settings = settings
        self._credit = [0.0] * len(weights)
        self._log_q = [math.log(weight) for weight in self._own]  # of group DRO, not normalized
        self._loss = [math.nan] * len(weights)
        self._step = 0

    @property
    def shares(self) -> list[float]:
        """The share of the prompts that each source gets now. They add up to 1."""
        if isinstance(self._settings, WeightsMixture):
            return list(self._own)
        top = max(self._log_q)
        q = [math.exp(one - top) for one in self._log_q]
        floor, total = self._settings.floor, math.fsum(q)
        return [floor * own + (1.0 - floor) * one / total for own, one in zip(self._own, q, strict=True)]

    def choose(self, ended: Sequence[bool]) -> int:
        """The next source. ended: which have no prompts left; not all of them. Changes nothing."""
        earned = self._earned(ended)
        return max((place for place, over in enumerate(ended) if not over), key=lambda place: (earned[place], -place))

    def note(self, source: int, ended: Sequence[bool]) -> None:
        """A prompt of this source was issued. ended: as it was when the source was chosen."""
        self._credit = self._earned(ended)
        self._credit[source] -= 1.0

    def _earned(self, ended: Sequence[bool]) -> list[float]:
        """Credit with the shares of the next prompt; what an ended source would get goes to the others."""
        shares = [0.0 if over else share for share, over in zip(self.shares, ended, strict=True)]
        total = math.fsum(shares) or 1.0
        return [credit + share / total for credit, share in zip(self._credit, shares, strict=True)]

    def observe(self, source: int, reward: float) -> None:
        """A group of this source was settled. reward: its mean reward before shaping; its loss is 1 - reward, between 0 and 1."""
        if isinstance(self._settings, WeightsMixture):
            return
        loss = min(1.0, max(0.0, 1.0 - reward))
        before = self._loss[source]
        rate = 1.0 / self._settings.smoothing_groups
        self._loss[source] = loss if math.isnan(before) else before + rate * (loss - before)

    def advance(self, step: int) -> None:
        """Update the weights for each learner step since the last call: q <- q exp(step_size x loss), as in arXiv:1911.08731,
        algorithm 1.

        The losses are running means over each source's own groups, so that a source that is sampled more is not updated more. A
        source without a group so far keeps up with the mean of the others.
        """
        steps = step - self._step
        self._step = step
        known = [loss for loss in self._loss if not math.isnan(loss)]
        if isinstance(self._settings, WeightsMixture) or steps <= 0 or not known:
            return
        mean = math.fsum(known) / len(known)
        for source, loss in enumerate(self._loss):
            self._log_q[source] += steps * self._settings.step_size * (mean if math.isnan(loss) else loss)
        top = max(self._log_q)
        self._log_q = [one - top for one in self._log_q]

    def to_dict(self) -> dict[str, Any]:
        """JSON values for the checkpoint."""
        losses = [None if math.isnan(loss) else loss for loss in self._loss]
        return {"credit": self._credit, "log_q": self._log_q, "loss": losses, "step": self._step}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `to_dict` gave, of the same sources."""
        self._credit = [float(one) for one in saved["credit"]]
        self._log_q = [float(one) for one in saved["log_q"]]
        self._loss = [math.nan if one is None else float(one) for one in saved["loss"]]
        self._step = int(saved["step"])
