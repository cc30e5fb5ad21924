"""What is learned in the laboratory: problems with one right answer, in tokens, and the model that training starts from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

ANY = -1
"""In an answer: whatever token stands there is right."""


@dataclass(frozen=True, slots=True)
class Task:
    """All prompts are of one length, so that a batch of them needs no padding."""

    name: str
    model: Path
    """A Hugging Face folder."""
    end: int
    """The token that ends a response; part of the answers."""
    train: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    """(prompt, answer) in tokens."""
    heldout: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    learning_rate: float
    teachers: tuple[Path, ...] = ()
    """Hugging Face folders, for the methods that distil."""

    @property
    def prompt_tokens(self) -> int:
        return len(self.train[0][0])

    @property
    def response_tokens(self) -> int:
        """The longest answer: what a response is cut at."""
        return max(len(answer) for _, answer in self.train)


def prompts_of(problems: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> Tensor:
    """int64 [N, P]."""
    return torch.tensor([prompt for prompt, _ in problems])


def addition() -> Task:
    """The bundled example: sums of two two-digit numbers, four tokens, 0.42 right at first."""
    from examples.addition.make_example import CHARACTERS, HERE, Recipe, answer, problems, question
    from examples.bundled import EOS

    def encoded(text: str) -> tuple[int, ...]:
        return tuple(CHARACTERS.index(c) + 2 for c in text)

    training, heldout = (
        tuple((encoded(question(pair)), (*encoded(answer(pair)), EOS)) for pair in pairs)
        for pairs in problems(Recipe())
    )
    return Task("addition", HERE / "model", EOS, training, heldout, learning_rate=2e-4)
