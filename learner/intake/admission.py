"""How many groups may be outstanding now.

With B groups per step and lag bounded by k steps, at most (v + k + 1) x B groups may have been issued while the replicas sample
under policy version v: the last of them is then consumed, in order, by the step from version v + k, which is k steps after it
was sampled. Worked example, B = 2 and k = 1: version 0 may issue 4 groups. The first step consumes two of them at lag 0 and
makes version 1, which may issue 2 more once the replicas hold it; the next step consumes the remaining two at lag 1. k = 0 is
synchronous training. No step consumes a group that is dropped or dead, so it leaves the count and its credit comes back.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """What bounds the number of outstanding groups."""

    groups_per_step: int
    max_lag: int  # learner steps


def admissible_groups(limits: AdmissionLimits, outstanding_groups: int, unconfirmed_steps: int) -> int:
    """How many groups may be issued now.

    outstanding_groups: groups issued and neither trained on, dropped nor dead. unconfirmed_steps: learner steps that the
    replicas do not sample under yet; a group issued now starts this many steps behind.
    """
    return max(0, (limits.max_lag + 1 - unconfirmed_steps) * limits.groups_per_step - outstanding_groups)
