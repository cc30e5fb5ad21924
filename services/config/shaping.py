"""[learner.shaping]: what is made of the verifier's rewards before advantages are taken."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from services.config.base import Strict


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as fault:
        raise ValueError(f"{pattern!r} is not a regular expression: {fault}") from None
    except RecursionError:
        raise ValueError(f"{pattern[:60]!r}... is nested too deeply for a regular expression") from None
    return pattern


class FormatGate(Strict):
    """A form that responses must have."""

    pattern: Annotated[str, Field(min_length=1), AfterValidator(_compiles)]
    """Regular expression. The response's text, as the verifier reads it, has to match it; a dot matches line ends, too."""
    match: Literal["search", "whole"] = "search"
    """Where the pattern has to match. search: somewhere in the response. whole: all of it, but for white space around it."""
    reward: float = 0.0
    """A response that does not match earns this at most."""


class OverlongConfig(Strict):
    """DAPO's soft punishment of overlong responses (arXiv:2503.14476, equation 13): nothing is taken off up to max_tokens -
    buffer_tokens, then more and more until `penalty` at max_tokens, which is the source's or that of rollout.sampling."""

    buffer_tokens: int = Field(ge=1)
    """Tokens before max_tokens at which the punishment begins."""
    penalty: float = Field(default=1.0, gt=0.0)
    """What a response of max_tokens loses."""


class BudgetConfig(Strict):
    """A budget of tokens: the reward of a correct response is multiplied by clip(slope x (tokens - length) + 0.5, 0, 1), as in
    L1-Max (arXiv:2503.04697)."""

    tokens: int = Field(ge=1)
    """The budget. A response of this length keeps half of its reward."""
    slope: float = Field(default=0.0003, gt=0.0, le=1.0)
    """How fast the factor changes, per token; 0.0003 is the paper's, for responses of thousands of tokens."""


class EfficiencyConfig(Strict):
    """Shorter among the correct: the reward of a correct response is multiplied by 1 - strength x sigmoid((length - mean) /
    deviation), with the mean and the deviation of the group's correct responses (arXiv:2502.04463)."""

    strength: float = Field(default=0.2, gt=0.0, lt=1.0)
    """At most this fraction of the reward is taken off."""


class ShapingConfig(Strict):
    """Shaping of rewards, in the order of the keys. The verdicts stay what they are; both mean rewards are reported. Without this
    section rewards are the verifier's."""

    format: Annotated[tuple[FormatGate, ...], Field(strict=False, max_length=16)] = ()
    """Forms that responses must have; none by default."""
    budget: BudgetConfig | None = None
    """A budget of tokens for correct responses."""
    efficiency: EfficiencyConfig | None = None
    """A bonus for the shorter ones among a group's correct responses."""
    overlong: OverlongConfig | None = None
    """A punishment of responses that come close to max_tokens. Not together with that of the grader combine."""
