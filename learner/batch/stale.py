"""What happens to stale tokens: a rule for each value of `learner.stale_tokens`, all of them in this file.

To add one: a function here, its line in RULES, and its name with a sentence at `stale_tokens` in services/config/learner.py.
tests/learner/batch/test_stale.py holds the two lists together and tries every rule.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from services.wire.trajectory import Trajectory

Tokens = NDArray[np.bool_]
"""A bool [L] for the tokens of one response."""
Rule = Callable[[Sequence[Tokens]], Sequence[Tokens] | None]
"""Decides for one group. Takes a bool [L] for each response, True where the token is stale. Returns a bool [L] for each
response, True where the token counts in the loss, or None to drop the whole group. A response of which no token counts is
left out and counted as stale; tokens that do not count in the others are counted as masked."""


def is_stale(trajectory: Trajectory, policy_version: int, max_lag: int) -> Tokens:
    """bool [L]: response tokens sampled more than max_lag learner steps before policy_version, or as many after it.

    A version after it is one of weights that a restart took back: as far from today's as the steps between them.
    """
    stale: Tokens = abs(policy_version - trajectory.policy_versions()) > max_lag
    return stale


def train(stale: Sequence[Tokens]) -> Sequence[Tokens]:
    """Every token counts."""
    return [np.ones_like(tokens) for tokens in stale]


def drop(stale: Sequence[Tokens]) -> Sequence[Tokens] | None:
    """A group with a stale token is dropped; its credit goes out again."""
    return None if any(bool(tokens.any()) for tokens in stale) else train(stale)


def mask(stale: Sequence[Tokens]) -> Sequence[Tokens]:
    """Stale tokens are left out of the loss."""
    return [~tokens for tokens in stale]


RULES: Mapping[str, Rule] = {"train": train, "drop": drop, "mask": mask}
"""Value of learner.stale_tokens -> its rule."""
