"""An objective is tried on made-up tokens before a run: ours pass, and what a step could not use is said."""

from typing import Any

import pytest
import torch
from torch import Tensor

from learner.objective import OBJECTIVES, Objective, check
from learner.objective.check import faults
from learner.objective.reinforce import reinforce
from learner.objective.tokens import Tokens
from services.config.objectives.registry import OURS
from services.config.objectives.reinforce import ReinforceObjective
from services.errors import InputError


@pytest.mark.parametrize("name", OURS)
def test_ratchet_s_own_pass(name: str) -> None:
    assert faults(OBJECTIVES[name], OURS[name].model_validate({"type": name})) == []


def total(tokens: Tokens, settings: Any) -> Tensor:
    return reinforce(tokens, settings).sum()


def detached(tokens: Tokens, settings: Any) -> Tensor:
    return tokens.advantage * tokens.current_logp


def double(tokens: Tokens, settings: Any) -> Tensor:
    return reinforce(tokens, settings).double()


def infinite(tokens: Tokens, settings: Any) -> Tensor:
    return reinforce(tokens, settings) / 0.0


def attached(tokens: Tokens, settings: Any) -> Tensor:
    return torch.exp(tokens.logp)


@pytest.mark.parametrize(
    ("objective", "complaint"),
    [
        (Objective(total), "surrogate must be float32 of shape [T] = [5], not torch.float32 []"),
        (Objective(double), "surrogate must be float32 of shape [T] = [5], not torch.float64 [5]"),
        (Objective(infinite), "surrogate is not finite on tokens with finite log-probs"),
        (Objective(detached), "surrogate carries no gradient; it must depend on tokens.logp"),
        (Objective(reinforce, token_weight=attached), "token_weight carries a gradient"),
    ],
)
def test_what_a_step_could_not_use_is_said(objective: Objective, complaint: str) -> None:
    (found,) = faults(objective, ReinforceObjective())
    assert complaint in found


def test_settings_that_make_it_fail_are_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    check.check(ReinforceObjective().model_dump_json())
    monkeypatch.setattr(check, "OBJECTIVES", {"reinforce": Objective(total)})
    with pytest.raises(
        InputError, match='the objective "reinforce" does not work on made-up tokens: surrogate must be'
    ):
        check.check(ReinforceObjective().model_dump_json())


def test_what_its_functions_raise_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "OBJECTIVES", {"reinforce": Objective(lambda tokens, settings: settings.no_such_field)})
    with pytest.raises(InputError, match=r"AttributeError: .*no_such_field"):
        check.check(ReinforceObjective().model_dump_json())
