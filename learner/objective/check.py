"""Tries an objective out on a few made-up tokens: `python -m learner.objective.check`, its settings as JSON on standard input.

`ratchet config` and `ratchet up` run this for an objective that a package brings, so that what is wrong with it shows in seconds.
"""

import dataclasses
import json
import sys

import torch

from learner.objective.base import Objective
from learner.objective.registry import OBJECTIVES
from learner.objective.tokens import Tokens
from services.config.objectives.base import ObjectiveSettings
from services.config.objectives.registry import settings_class
from services.errors import InputError

LENGTHS = (3, 0, 2)
"""Tokens of the sequences that are made up; the second has none that counts, as may happen in a run."""


def example_tokens(teachers: int) -> Tokens:
    """Five tokens of three sequences, on which all policies differ a little."""
    lengths = torch.tensor(LENGTHS)
    count = int(lengths.sum())
    current = -torch.linspace(0.1, 2.0, count)
    other = -torch.linspace(0.2, 1.7, count)
    return Tokens(
        logp=current.clone().requires_grad_(),
        current_logp=current,
        proximal_logp=other,
        behavior_logp=other.flip(0),
        reference_logp=current.flip(0),
        teacher_logp=other.repeat(teachers, 1),
        entropy=torch.linspace(0.3, 2.0, count).requires_grad_(),
        hidden=torch.linspace(0.1, 1.0, 6).reshape(3, 2).requires_grad_(),
        predicted_hidden=torch.linspace(-1.0, 1.0, 6).reshape(3, 2).requires_grad_(),
        reference_hidden=torch.ones(len(lengths), 2),
        advantage=torch.tensor([1.0, 0.5, -0.5]).repeat_interleave(lengths),
        lag_steps=torch.arange(count) % 3,
        group=torch.tensor([0, 0, 1]),
        lengths=lengths,
        statistics=torch.zeros(0, dtype=torch.float64),
    )


def faults(objective: Objective, settings: ObjectiveSettings) -> list[str]:
    """What a learner step could not use; empty when all is well."""
    tokens = example_tokens(settings.teachers[0])
    if objective.statistics is not None:
        tokens = dataclasses.replace(tokens, statistics=objective.statistics(tokens, settings))
    weight = objective.token_weight(tokens, settings)
    value = objective.surrogate(tokens, settings)
    found = []
    for name, got in (("token_weight", weight), ("surrogate", value)):
        if got.shape != tokens.logp.shape or got.dtype != torch.float32:
            found.append(
                f"{name} must be float32 of shape [T] = [{len(tokens.logp)}], not {got.dtype} {list(got.shape)}"
            )
        elif not bool(torch.isfinite(got).all()):
            found.append(f"{name} is not finite on tokens with finite log-probs")
    if weight.requires_grad:
        found.append("token_weight carries a gradient; detach it, or use tokens.current_logp in place of tokens.logp")
    if not value.requires_grad:
        found.append("surrogate carries no gradient; it must depend on tokens.logp")
    return found


def check(given: str) -> None:
    """Try the objective with these settings, as JSON. Raises InputError."""
    settings = settings_class(json.loads(given)["type"]).model_validate_json(given)
    objective = OBJECTIVES[settings.type]
    try:
        found = faults(objective, settings)
    except Exception as fault:  # another author's function may raise anything
        found = [f"{type(fault).__name__}: {fault}"]
    if found:
        raise InputError(f'the objective "{settings.type}" does not work on made-up tokens: {"; ".join(found)}')


if __name__ == "__main__":
    try:
        check(sys.stdin.read())
    except InputError as error:
        sys.exit(str(error))  # to standard error, with exit code 1
