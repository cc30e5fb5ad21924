"""Whether replicas hold the learner's weights, by the probes that they confirm versions with."""

from collections.abc import Sequence

from learner.control.mismatch import CAUSES, SAME_NATS, gap_bound
from learner.metrics import GAP_LIMIT_NATS, GAP_NATS
from services.config import RunConfig
from services.errors import InputError
from services.weights.gap import APART, in_words, is_within, widest
from services.wire.membership import Confirmation
from services.wire.weights import Gap


class Proof:
    """Compares what replicas confirm with what the learner computes."""

    def __init__(self, config: RunConfig, rounding: Gap | None = None) -> None:
        """rounding: as an earlier start of the run knew it; None: there was none."""
        self._config = config
        self.kernel_gap: Gap | None = None
        """Largest difference of the probes that a replica has measured with the weights on disk; None before the first."""
        self.rounding = rounding
        """The same, or that of a version since which was accepted: training lets logits grow, and their rounding with them."""

    @property
    def bound(self) -> Gap:
        """How far the probes of a replica may be from the learner's."""
        return gap_bound(self._config.weights, self._config.model.dtype, self.rounding)

    def check(self, confirmed: Sequence[Confirmation], policy_version: int) -> Gap:
        """Return how far the probes of these replicas, at least one, are from the learner's. Raises Unequal where that is above
        the bound."""
        for confirmation in confirmed:
            self._check_start(confirmation)
        gap, bound = widest(confirmation.gap or APART for confirmation in confirmed), self.bound
        GAP_NATS.set(gap.largest_nats)
        GAP_LIMIT_NATS.set(bound.largest_nats)
        for confirmation in confirmed:
            found = confirmation.gap or APART
            if not is_within(found, bound):
                rounding = (
                    ""
                    if self.rounding is None
                    else f"; until now the two differed by {in_words(self.rounding)}, which is rounding"
                )
                raise Unequal(
                    f"replica {confirmation.replica_id} does not hold the learner's weights: after policy version "
                    f"{policy_version} its probes differ by {in_words(found)}, and may differ by {in_words(bound)}"
                    f"{rounding}. {CAUSES}. If the gap is rounding alone, raise weights.max_gap_nats"
                )
        self._accept(gap)
        return gap

    def _accept(self, gap: Gap) -> None:
        self.rounding = widest([gap, self.rounding or gap])

    def _check_start(self, confirmation: Confirmation) -> None:
        """Look at what a replica measured around its first swap. Raises Unequal."""
        config, found = self._config, confirmation.kernel_gap
        dtype = config.model.dtype
        if found is None:
            return
        most = gap_bound(config.weights, dtype, None)
        if not is_within(found, most):
            raise Unequal(
                f"engine and learner compute different log-probs from the same folder, model.path = {config.model.path}: "
                f"before any weights were sent, the probes of replica {confirmation.replica_id} differ by {in_words(found)}, "
                f"and rounding in {dtype} explains {in_words(most)}. {CAUSES}"
            )
        self.kernel_gap = widest([found, self.kernel_gap or found])
        self._accept(found)
        moved = confirmation.moved_nats
        if moved is not None and not moved <= max(SAME_NATS[dtype], config.weights.max_gap_nats or 0.0):
            raise Unequal(
                f"weights did not find their places in the engine of replica {confirmation.replica_id}: version 0 is what it had "
                f"read from disk, and yet its probe moved by {moved:.3g} nats when the same weights were sent. The engine "
                "knows some of this model's weights under other names, or cannot reload them: train a model that "
                "docs/models.md names, or report this one"
            )


class Unequal(InputError):
    """Engine and learner do not compute the same from the same weights; trying again would not change that."""
