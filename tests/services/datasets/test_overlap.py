"""Held-out problems that are trained on are counted."""

from typing import Any

import pytest

from services.datasets.dataset import Problem
from services.datasets.overlap import overlap_warning


def problems(*prompts: Any, file: str) -> list[Problem]:
    return [
        Problem(row=row, prompt=prompt, reference="2", grader="exact", place=f"{file} line {row + 1}")
        for row, prompt in enumerate(prompts)
    ]


def test_held_out_prompts_that_are_trained_on_are_counted() -> None:
    training = problems("1+1=", "2+2=", "3+3=", file="train.jsonl")
    held_out = problems("4+4=", " 2+2=\n", [{"role": "user", "content": "1+1="}], file="held-out.jsonl")
    said = overlap_warning(training, held_out)
    assert said is not None
    assert "2 of 3 held-out prompts are also trained on" in said
    assert "The first: held-out.jsonl line 2 is train.jsonl line 2 of the training problems" in said


@pytest.mark.parametrize(
    "prompt", ["1+1", [{"role": "system", "content": "1+1="}], [{"role": "user", "content": "1+1="}] * 2]
)
def test_other_prompts_are_not(prompt: Any) -> None:
    assert overlap_warning(problems("1+1=", file="a"), problems(prompt, file="b")) is None
