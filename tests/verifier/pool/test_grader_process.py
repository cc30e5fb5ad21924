"""What a grader process answers, without a process: its graders, its protocol and its page."""

import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.verifier.bad_graders import REGISTRY
from verifier.contract import ScoreItem
from verifier.pool.grader_process import LoadedGraders, receive, send
from verifier.pool.protocol import PAGE_BYTES, GradeResult, GradeTask, ItemProgress, ProgressPage
from verifier.scores import no_verdict


@pytest.fixture
def page() -> Iterator[ProgressPage]:
    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), PAGE_BYTES)
        page = ProgressPage(file.fileno())
        yield page
        page.close()


def task(response: str, reference: Any = "right", grader: str = "odd", **options: Any) -> GradeTask:
    return GradeTask(ScoreItem("a", grader, response, reference, options))


def test_every_outcome_is_a_score(page: ProgressPage) -> None:
    graders = LoadedGraders(page, REGISTRY | {"remote": "verifier.graders.remote:Remote"})

    def said(one: GradeTask) -> tuple[str, str]:
        score = graders.grade(1, 0, one).score
        return score.verdict, score.detail

    assert said(task("right"))[0] == "correct"
    assert said(task("wrong"))[0] == "incorrect"
    assert said(task("raise")) == ("error", "grader odd failed: RuntimeError: the grader has a bug")
    assert said(task("nan")) == ("error", "the grader gave the reward nan")
    assert said(task("12", "12", "exact", fuzzy=True))[1].startswith("unknown options fuzzy")
    assert said(task("12", grader="nothing"))[1].startswith("unknown grader nothing; known: combine, exact")
    assert "grader missing cannot be loaded: ModuleNotFoundError" in said(task("12", grader="missing"))[1]
    assert "does not run in a grader process: its lane is network" in said(task("12", grader="remote"))[1]


def test_a_reference_can_be_checked_alone(page: ProgressPage) -> None:
    graders = LoadedGraders(page, REGISTRY)
    fine, unusable = ScoreItem("a", "exact", "", "12"), ScoreItem("a", "exact", "", None)
    assert graders.grade(1, 0, GradeTask(fine, reference_only=True)).score.verdict == "correct"
    assert graders.grade(1, 1, GradeTask(unusable, reference_only=True)).score.verdict == "error"


def test_the_page_says_which_item_is_being_graded(page: ProgressPage) -> None:
    LoadedGraders(page, REGISTRY).grade(7, 3, task("right"))
    progress = page.read()
    assert (progress.chunk, progress.index, progress.loading) == (7, 3, False)
    page.write(8, 4 + (1 << 32), 1.5, 0.5)
    assert page.read() == ItemProgress(8, 4, 1.5, 0.5, loading=True)


def test_messages_cross_whole_and_a_closed_socket_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        results = [GradeResult(no_verdict("x" * 400), out_of_memory=True)] * 100
        send(theirs, results)
        message = receive(ours)
        assert message is not None
        assert msgspec.json.decode(message, type=list[GradeResult]) == results
        theirs.close()
        assert receive(ours) is None


def test_integers_of_any_size_cross() -> None:
    asked = task("12", 10**40)
    assert msgspec.json.decode(msgspec.json.encode(asked), type=GradeTask) == asked
