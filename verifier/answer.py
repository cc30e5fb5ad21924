"""Where the answer is in the response of a model that thinks first. Every grader is given the answer, never the thought, and
this is the one place that tells them apart.

The answer is what follows the last `</think>`, without the white space before it. A response without `</think>` that begins
with `<think>` was cut off in its thought: its answer is empty. Any other response is all answer, because nothing tells that
it is a thought which the prompt had opened.
"""

import functools
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple

import msgspec

Tag = Annotated[str, msgspec.Meta(min_length=1)]
Tags = tuple[Tag, Tag]
"""What opens a thought, and what closes it."""

THINK: Tags = ("<think>", "</think>")
LEFT_OPEN = "the thought is left open, so there is no answer"


class Answer(NamedTuple):
    text: str
    left_open: bool = False
    """Whether the response ended, or was cut off, within its thought."""


def answer_of(response: str, thought: Tags | None = THINK) -> Answer:
    """The answer of a response; the answer of an answer is itself. thought: None: all of the response is the answer."""
    if thought is None:
        return Answer(response)
    opening, closing = thought
    behind = response.rpartition(closing)[2]
    answer = behind.lstrip() if len(behind) < len(response) else response
    if answer.lstrip().startswith(opening):
        return Answer("", left_open=True)
    return Answer(answer)


class OnAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a grader judge the answer of a response: `score` of every subclass takes the thought off first, so that no
    grader has to know of it and no caller can forget it."""

    thought: Tags | None = THINK
    """What opens and what closes the thought that is not graded. null: the thought is graded like the rest."""

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "score" in vars(cls):
            setattr(cls, "score", _on_answer(vars(cls)["score"]))  # noqa: B010 - mypy allows no plain assignment


def _on_answer(score: Callable[..., Any]) -> Callable[..., Any]:
    """The method `score` for whole responses. Where the thought is left open, the judgment's detail says so."""

    @functools.wraps(score)
    def score_answer(self: OnAnswer, response: str, *others: Any) -> Any:
        answer = answer_of(response, self.thought)
        judgment = score(self, answer.text, *others)
        if not answer.left_open:
            return judgment
        return _explained_later(judgment) if isinstance(judgment, Awaitable) else _explained(judgment)

    return score_answer


def _explained(judgment: Any) -> Any:
    return judgment._replace(detail=f"{LEFT_OPEN}; {judgment.detail}" if judgment.detail else LEFT_OPEN)


async def _explained_later(judgment: Awaitable[Any]) -> Any:
    return _explained(await judgment)
