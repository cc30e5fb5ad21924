"""A sequence number keeps its problem, group size and seed until its group is settled, whatever the sampler and whoever dies."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.intake.issuer import PromptIssuer, PromptSource
from learner.intake.leftovers import groups_on
from learner.prompts.plan import PromptPlan
from services.config import RunConfig
from services.config.load import parse
from services.datasets.dataset import Problem, PromptCursor
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from services.wire.score import ScoredGroup
from services.wire.trajectory import Group
from tests.fakes.streams import MemoryIssueLog, MemoryStream
from tests.learner.tiny import scored_group

SAMPLERS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "replay": {"sampler": {"type": "replay", "cooldown_steps": 1}},
    "curriculum": {"sampler": {"type": "curriculum"}},
    "group_dro": {"mixture": {"type": "group_dro", "step_size": 1.0}},
    "skip": {"skip": {"solved": True, "unsolved": True, "after": 1, "retry_steps": 3}},
    "adaptive_group": {"adaptive_group": {"least": 2, "most": 9}},
}


def config(name: str = "uniform", *, sources: int = 2, **own: Any) -> RunConfig:
    prompts: dict[str, Any] = {"template": "none", **SAMPLERS[name]}
    if sources == 1:
        prompts["source"] = {"type": "jsonl", "path": "train.jsonl"}
    else:
        made = [
            {"name": f"s{n}", "weight": n + 1.0, "source": {"type": "jsonl", "path": f"{n}"}} for n in range(sources)
        ]
        prompts["sources"] = [one | own for one in made]
    return parse(
        {
            "name": "try",
            "seed": 5,
            "device": "cpu",
            "model": {"path": "nowhere", "max_length": 32, "dtype": "float32"},
            "prompts": prompts,
            "rollout": {"sampling": {"max_tokens": 8, "group_size": 4}},
            "learner": {"steps": 10, "groups_per_step": 2, "max_lag": 1},
            "weights": {"type": "gloo"},
        },
        folder=Path(),
        origin="the test",
    )


def problems(of: RunConfig, rows: int = 7) -> list[list[Problem]]:
    return [
        [Problem(10 + row, f"{row}", 0, "exact", source=one.name) for row in range(rows)] for one in of.prompts.each
    ]


class Bench:
    """A run without a model: what is issued is settled when the test says so."""

    def __init__(self, name: str, sources: int = 2) -> None:
        self.config = config(name, sources=sources)
        self.prompts = MemoryStream("prompts")
        self.log = MemoryIssueLog(self.prompts)
        self.issuer = self.start()
        self.settled: set[int] = set()

    def start(self, saved: dict[str, Any] | None = None, issued: int = 0) -> PromptIssuer:
        own = [PromptSource(one, lambda problem: [1, 2]) for one in problems(self.config)]
        self.issuer = PromptIssuer(self.config, own, self.log)
        self.issuer.begin(saved, issued)
        return self.issuer

    def issue(self, count: int, step: int) -> list[Prompt]:
        """Up to four new prompts."""
        before = len(self.issued())
        self.issuer.issue(self.issuer.issued_count(), lambda issued: 4 - count, step, step, max_lag=1)
        return self.issued()[before:]

    def settle(self, prompts: list[Prompt], step: int) -> None:
        for prompt in prompts:
            self.settled.add(prompt.sequence_number)
            self.issuer.observe(answered(prompt), step)

    def issued(self) -> list[Prompt]:
        return [decode(payload, Prompt) for payload in self.prompts.peek(10_000)]

    def unsettled(self) -> list[int]:
        return [number for number in range(self.log.issued_count()) if number not in self.settled]


def answered(prompt: Prompt) -> ScoredGroup:
    """As often right as the row says: always, never or in between."""
    right = (prompt.row * 7 % 5) / 4
    rewards = [float(index < right * prompt.group_size) for index in range(prompt.group_size)]
    sampled = scored_group(prompt.sequence_number, rewards=rewards)
    group = Group(prompt=prompt, trajectories=sampled.group.trajectories, replica_id="r")
    return ScoredGroup(group=group, scores=sampled.scores, verifier_id="v")


@pytest.mark.parametrize("name", SAMPLERS)
@given(settle_first=st.integers(0, 4), steps=st.integers(1, 8))
@settings(max_examples=15)
def test_a_prompt_that_is_issued_again_is_the_same(name: str, settle_first: int, steps: int) -> None:
    """The server loses everything; what the checkpoint knows as out comes again to the letter."""
    bench = Bench(name)
    for step in range(steps):
        bench.settle(bench.issue(4, step)[: settle_first or 4], step)
    out = bench.unsettled()
    saved = json.loads(json.dumps(bench.issuer.to_dict(out)))
    before = {prompt.sequence_number: prompt for prompt in bench.issued()}
    issued = bench.log.issued_count()
    bench.prompts = MemoryStream("prompts")
    bench.log = MemoryIssueLog(bench.prompts)
    bench.start(saved, issued)
    bench.issuer.issue_again(out, issued)
    assert bench.issued() == [before[number] for number in out]
    assert [bench.issuer.prompt(number) for number in out] == [before[number] for number in out]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_resumed_run_goes_on_as_it_would_have(name: str) -> None:
    bench = Bench(name)
    for step in range(6):
        bench.settle(bench.issue(4, step)[:3], step)
    saved = json.loads(json.dumps(bench.issuer.to_dict(bench.unsettled())))
    issued = bench.log.issued_count()
    there = [bench.issuer.prompt(number, 6) for number in range(issued, issued + 20)]
    bench.start(saved, issued)
    assert [bench.issuer.prompt(number, 6) for number in range(issued, issued + 20)] == there


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_was_issued_after_the_checkpoint_is_learned_from_the_streams(name: str) -> None:
    """The learner dies: the prompts on the streams keep their numbers, one that is lost gets the next, and all is counted."""
    bench = Bench(name)
    bench.settle(bench.issue(4, 0), 0)
    saved, issued = json.loads(json.dumps(bench.issuer.to_dict([]))), bench.log.issued_count()
    later = bench.issue(4, 1)
    assert [prompt.sequence_number for prompt in later] == list(range(issued, issued + 4))
    bench.start(saved, issued)
    stream = MemoryStream("prompts")
    for prompt in later[1:]:
        stream.append(encode(prompt))
    bench.issuer.catch_up(lambda: groups_on([stream]), 1)
    for prompt in later[1:]:
        again = bench.issuer.prompt(prompt.sequence_number)
        assert (again.row, again.source, again.group_size, again.seed) == (
            prompt.row,
            prompt.source,
            prompt.group_size,
            prompt.seed,
        )
    bench.issuer.issue_again([issued], issued + 4)
    assert bench.issued()[-1] == later[0]  # it comes first after the checkpoint, so its choice is the same


def test_a_checkpoint_without_a_plan_goes_on_in_the_order_that_it_had() -> None:
    bench = Bench("uniform", sources=1)
    cursor = PromptCursor(5, 7, shuffle=True)
    bench.start(None, issued=9)
    rows = [bench.issuer.prompt(number).row - 10 for number in (4, 8, 9, 10)]
    assert rows == [cursor.at(number)[1] for number in (4, 8, 9, 10)]


@given(weights=st.lists(st.floats(0.1, 10.0), min_size=2, max_size=4))
@settings(max_examples=20)
def test_sources_get_their_weights_and_each_goes_through_its_own_epochs(weights: list[float]) -> None:
    run = config(sources=len(weights))
    each = tuple(one.model_copy(update={"weight": w}) for one, w in zip(run.prompts.sources, weights, strict=True))
    run = run.model_copy(update={"prompts": run.prompts.model_copy(update={"sources": each})})
    plan = PromptPlan(run, problems(run))
    picks = [plan.pick(number, 0) for number in range(200)]
    counts = Counter(pick.source for pick in picks)
    for source, weight in enumerate(weights):
        assert abs(counts[source] - 200 * weight / sum(weights)) < len(weights)
        own = [pick.problem for pick in picks if pick.source == source]
        for epoch in range(len(own) // 7):
            assert sorted(own[7 * epoch : 7 * epoch + 7]) == list(range(7))


def test_a_source_that_ends_leaves_its_share_to_the_others_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    run = config()
    first = run.prompts.sources[0].model_copy(update={"epochs": 1})
    run = run.model_copy(
        update={"prompts": run.prompts.model_copy(update={"sources": (first, run.prompts.sources[1])})}
    )
    plan = PromptPlan(run, problems(run))
    counts = Counter(plan.pick(number, 0).source for number in range(100))
    assert counts == {0: 7, 1: 93}
    assert [record.message for record in caplog.records] == [
        "source s0 has ended after 7 prompts (epochs = 1): the other sources share its weight"
    ]


def test_once_every_source_has_ended_nothing_is_issued() -> None:
    run = config(epochs=1)
    log = MemoryIssueLog(MemoryStream("prompts"))
    issuer = PromptIssuer(run, [PromptSource(own, lambda _: [1]) for own in problems(run)], log)
    for _ in range(10):
        issuer.issue(issuer.issued_count(), lambda issued: 0, 0, 0, max_lag=1)
    assert log.issued_count() == 14
    assert issuer.has_ended


def test_each_source_has_its_own_sampling() -> None:
    run = config(temperature=0.5, max_tokens=3, group_size=6)
    issuer = PromptIssuer(
        run, [PromptSource(own, lambda _: [1]) for own in problems(run)], MemoryIssueLog(MemoryStream("p"))
    )
    prompt = issuer.prompt(0)
    assert (prompt.temperature, prompt.max_tokens, prompt.group_size, prompt.source) == (0.5, 3, 6, "s1")
    assert run.largest_group == 6


def test_groups_of_a_problem_that_is_not_there_any_more_are_ignored() -> None:
    bench = Bench("replay")
    (prompt, *_) = bench.issue(4, 0)
    saved = json.loads(json.dumps(bench.issuer.to_dict([prompt.sequence_number])))
    bench.config = bench.config.model_copy(
        update={"prompts": bench.config.prompts.model_copy(update={"sources": bench.config.prompts.sources[:1]})}
    )
    bench.start(saved, 4)
    bench.issuer.observe(answered(prompt), 0)
    assert bench.issuer.prompt(prompt.sequence_number).source == "s0"
