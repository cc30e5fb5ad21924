"""Held-out problems that are also trained on: their accuracy is that of what was learned by heart."""

from collections.abc import Sequence

from services.datasets.dataset import Problem
from services.numbers import count


def overlap_warning(training: Sequence[Problem], held_out: Sequence[Problem]) -> str | None:
    """A warning that counts the held-out problems whose prompts are also trained on; None if there are none.

    Prompts are compared without the white space at their ends; a text and the same text as the only message of a user are one
    prompt.
    """
    trained = {_key(problem): problem for problem in training}
    shared = [(problem, trained[key]) for problem in held_out if (key := _key(problem)) in trained]
    if not shared:
        return None
    first, same = shared[0]
    return (
        f"evaluation.prompts: {count(len(shared))} of {count(len(held_out))} held-out prompts are also trained on, so the "
        f"accuracy says little about other problems. The first: "
        f"{first.place or first.row} is {same.place or same.row} of the training problems. "
        "Check evaluation.prompts.source, and its split if it has one"
    )


def _key(problem: Problem) -> tuple[tuple[str, str], ...]:
    if isinstance(problem.prompt, str):
        return (("user", problem.prompt.strip()),)
    return tuple((message["role"], message["content"].strip()) for message in problem.prompt)
