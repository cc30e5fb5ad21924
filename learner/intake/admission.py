"""How many groups may be outstanding now.

With B groups a step and a bound of k steps on the lag, the groups issued while the replicas sample under policy version v
may number at most (v + k + 1) x B: the last of them is then consumed, in order, by the step from version v + k, k steps
after it was sampled. Worked example, B = 2 and k = 1: version 0 may issue 4 groups. The first step consumes two of them at
lag 0 and makes version 1, which, once the replicas hold it, may issue 2 more; the next step consumes the two that are left,
at lag 1. k = 0 is synchronous training. A group that is dropped or dead is consumed by no step, so it leaves the count and
its credit comes back.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    groups_per_step: int
    max_lag: int  # learner steps


def admissible_groups(limits: AdmissionLimits, outstanding_groups: int, unconfirmed_steps: int) -> int:
    """Groups that may be issued now.

    outstanding_groups: issued, and neither trained on, dropped nor dead. unconfirmed_steps: learner steps that replicas do
    not sample under yet; what is issued now starts so far behind.
    """
    return max(0, (limits.max_lag + 1 - unconfirmed_steps) * limits.groups_per_step - outstanding_groups)
