"""The lag laboratory's promises: data of an exact age, equal samples, and a table that goes on where it was stopped."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import benchmarks.lag.experiment as laboratory
from benchmarks.lag.chain import DIGITS, SLIP, solutions
from benchmarks.lag.experiment import Outcome, Setting, collapsed_at, experiment
from benchmarks.lag.groups import is_right, scored_groups
from benchmarks.lag.methods import METHODS, settings
from benchmarks.lag.one_run import Order
from benchmarks.lag.report import details, table
from benchmarks.lag.results import Row, Run, append, missing, read
from benchmarks.lag.sampler import Sampled
from benchmarks.lag.task import ANY, Task
from learner.batch.step_batch import StepBatch
from learner.step.learner_step import learner_step
from services.config.learner import LearnerConfig
from services.errors import InputError
from tests.fakes.train_engine import BigramEngine

END, TOKENS = 1, 4
PROBLEMS = tuple(((2 + i % 5, 7 + i % 3), (END,)) for i in range(30))
TEACHERS = (Path("one"), Path("another"))
TASK = Task("bigrams", Path("nowhere"), END, PROBLEMS, PROBLEMS[:6], learning_rate=1.0)


class BigramSampler:
    """From the table of a bigram engine."""

    def load(self, weights: Sequence[tuple[str, Tensor]]) -> None:
        ((_, self.table),) = weights

    def sample(self, prompts: Tensor, max_tokens: int, random: torch.Generator) -> Sampled:
        at, tokens, logp = prompts[:, -1], [], []
        for _ in range(TOKENS):
            log_p = self.table[at].log_softmax(-1)
            at = torch.multinomial(log_p.exp(), 1, generator=random)[:, 0]
            tokens.append(at)
            logp.append(log_p.gather(1, at[:, None])[:, 0])
        ids = torch.stack(tokens, 1)
        ended = (ids == END).any(1)
        lengths = torch.where(ended, (ids == END).int().argmax(1) + 1, TOKENS)
        return Sampled(ids, torch.stack(logp, 1), lengths, ended)


def config(method: str = "grpo", lag: int = 0, steps: int = 8) -> LearnerConfig:
    return settings(
        method,
        lag=lag,
        steps=steps,
        groups_per_step=5,
        learning_rate=5.0,
        prompt_tokens=2,
        response_tokens=TOKENS,
        teachers=TEACHERS,
    )


def engine() -> BigramEngine:
    """Right about one time in four."""
    made = BigramEngine()
    made.logits[:, END] += 2.0
    made.teachers = [made.logits + torch.eye(17), made.logits - torch.eye(17)]
    return made


def run(method: str = "grpo", lag: int = 0, seed: int = 0) -> Outcome:
    return experiment(engine(), BigramSampler(), TASK, config(method, lag), Setting(lag, seed, 4, 2))


@pytest.mark.parametrize("lag", [0, 1, 3, 20])
def test_every_token_was_drawn_by_the_weights_of_just_so_many_steps_ago(
    lag: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[Tensor] = []
    seen: list[StepBatch] = []
    take = learner_step

    def watched(engine: BigramEngine, batch: StepBatch, *args, **kwargs):  # type: ignore[no-untyped-def]
        tables.append(engine.logits.clone())
        seen.append(batch)
        return take(engine, batch, *args, **kwargs)

    monkeypatch.setattr(laboratory, "learner_step", watched)
    run(lag=lag)
    assert len(seen) == 8
    for step, batch in enumerate(seen):
        drawn_by = max(0, step - lag)
        assert (step - batch.lag_steps == drawn_by).all()
        log_p = tables[drawn_by].log_softmax(-1)
        for i, (start, end) in enumerate(itertools.pairwise(batch.cu_seqlens.tolist())):
            whole = torch.cat([batch.prompt_ids[i][-1:], batch.response_ids[start:end]])
            assert torch.allclose(batch.behavior_logp[start:end], log_p[whole[:-1], whole[1:]], atol=1e-6)
    assert not torch.allclose(tables[0], tables[-1])


def test_samples_are_equal_whatever_the_lag_and_so_are_the_first_ones() -> None:
    outcomes = [run(lag=lag) for lag in (0, 2, 20)]
    assert {o.samples for o in outcomes} == {8 * 5 * 4}
    assert len({o.accuracy[0] for o in outcomes}) == 1
    assert len({o.reports[0].mean_reward for o in outcomes}) == 1
    assert [step for step, _ in outcomes[0].accuracy] == [0, 2, 4, 6, 8]


def test_the_same_seed_is_the_same_run_and_another_is_not() -> None:
    first, again, other = run(lag=2), run(lag=2), run(lag=2, seed=1)
    assert first.reports == again.reports
    assert first.reports != other.reports


def test_lag_zero_is_on_policy_and_more_lag_is_less_so() -> None:
    ess = [[r.ess_ratio for r in run(lag=lag).reports if r.skipped is None] for lag in (0, 3)]
    assert min(ess[0]) > 0.9999
    assert min(ess[1]) < 0.995


def test_the_reference_moves_as_the_ratchet_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(["not_due", "swap", "not_due", "roll_back", "swap", "pass_rate_fell", "not_due", "not_due"])
    monkeypatch.setattr(laboratory, "observe", lambda settings, state, **facts: (state, next(said)))
    made, moved = engine(), []
    made.ratchet_reference = lambda: moved.append("swap")  # type: ignore[method-assign]
    made.roll_back_reference = lambda: moved.append("roll_back")  # type: ignore[method-assign]
    experiment(made, BigramSampler(), TASK, config("owpo"), Setting(0, 0, 4, 2))
    assert moved == ["swap", "roll_back", "swap"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_settings_that_hold_and_takes_steps(method: str) -> None:
    outcome = experiment(engine(), BigramSampler(), TASK, config(method, 2, 3), Setting(2, 0, 4, 100))
    assert any(r.skipped is None for r in outcome.reports)


def test_a_method_that_distils_is_refused_where_the_task_has_too_few_teachers() -> None:
    with pytest.raises(InputError, match="mopd distils from 2 teachers and the task has 1"):
        settings(
            "mopd",
            lag=0,
            steps=1,
            groups_per_step=1,
            learning_rate=1.0,
            prompt_tokens=1,
            response_tokens=1,
            teachers=TEACHERS[:1],
        )


def test_a_response_is_right_when_every_token_is_its_end_included() -> None:
    ids = torch.tensor([[3, END, 9], [3, 4, 5], [3, 3, END], [END, 3, 9]])
    sampled = Sampled(ids, torch.zeros(4, 3), torch.tensor([2, 3, 3, 1]), torch.tensor([True, False, True, True]))
    (group,) = scored_groups([((1, 2), (3, END))], sampled, group_size=4, policy_version=7, first_number=0)
    assert [s.reward for s in group.scores] == [1.0, 0.0, 0.0, 0.0]
    assert [len(t) for t in group.group.trajectories] == [2, 3, 3, 1]
    assert [t.finish_reason for t in group.group.trajectories] == ["stop", "length", "stop", "stop"]
    assert {int(v) for t in group.group.trajectories for v in t.policy_versions()} == {7}


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.4, 0.6, 0.9], None),
        ([0.4, 0.8, 0.3, 0.2], 2),
        ([0.4, 0.8, 0.3, 0.5], None),
        ([0.4, 0.8, 0.1, 0.5, 0.3, 0.3], 4),
        ([0.0, 0.0], None),
    ],
)
def test_collapse_is_where_accuracy_falls_below_half_of_its_best_and_stays(
    curve: list[float], expected: int | None
) -> None:
    assert collapsed_at(list(enumerate(curve))) == expected


ROWS = st.lists(st.tuples(st.sampled_from(["grpo", "owpo"]), st.integers(0, 3), st.integers(0, 2)), unique=True)


def row(method: str, lag: int, seed: int, steps: int = 10) -> Row:
    return Row("t", method, lag, seed, 0.4, 0.9, None, 0.8, steps, 100, 1.0, "abc", 0.7)


@given(ROWS, st.integers(0, 40))
def test_what_has_a_row_is_not_run_again_and_a_row_cut_off_is(
    tmp_path_factory: pytest.TempPathFactory, done: list[tuple[str, int, int]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "results.jsonl"
    for one in done:
        append(path, row(*one))
    if done and cut:
        path.write_bytes(path.read_bytes()[:-cut])
    wanted = [Run("t", m, lag, s) for m, lag, s in itertools.product(["grpo", "owpo"], range(4), range(3))]
    whole = done[:-1] if cut > 1 else done  # the line's end alone may be missing
    left = missing(wanted, read(path), 10)
    assert left == [r for r in wanted if (r.method, r.lag, r.seed) not in whole]
    for run_ in left:  # what comes after a line that was cut off is not lost with it
        append(path, row(run_.method, run_.lag, run_.seed))
    assert missing(wanted, read(path), 10) == []
    assert missing(wanted, read(path), 11) == wanted


def test_what_is_not_the_usual_is_part_of_the_name() -> None:
    usual = Order("t", "grpo", 4, 1, 10, 2, 2, 5, None, "constant", "train", "out")
    assert usual.run == Run("t", "grpo", 4, 1)
    unusual = dataclasses.replace(usual, learning_rate=3e-4, schedule="linear", zero_variance="drop")
    assert unusual.run == Run("t@0.0003-linear-drop", "grpo", 4, 1)


def test_the_table_says_mean_interval_and_collapses() -> None:
    rows = [dataclasses.replace(row("grpo", 4, seed), accuracy_end=0.5 + seed / 10) for seed in range(3)]
    rows.append(dataclasses.replace(row("owpo", 0, 0), accuracy_end=0.125, collapsed_at_step=7))
    assert table(rows).split("\n") == [
        "| method | lag 0 | lag 4 |",
        "|---|---|---|",
        "| `grpo` |  | 0.600 ± 0.248 |",
        "| `owpo` | 0.125, 1 of 1 collapsed |  |",
    ]
    assert details(rows).split("\n")[2:] == [
        "| `grpo` | 4 | 0.500, 0.600, 0.700 | 0.700 ± 0.000 | -, -, - | 0.80 | 1 |",
        "| `owpo` | 0 | 0.125 | 0.700 | 7 | 0.80 | 1 |",
    ]


def test_a_chain_without_slips_is_right_and_goes_on_from_its_slips_with_them() -> None:
    right = solutions(50, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(right[:, :DIGITS].cumsum(1) % 10, right[:, DIGITS + 1 : -1])
    slipped = solutions(400, SLIP, torch.Generator().manual_seed(0))
    given, totals = slipped[:, :DIGITS], slipped[:, DIGITS + 1 : -1]
    before = torch.cat([torch.zeros(400, 1, dtype=torch.int64), totals[:, :-1]], 1)
    wrong = (before + given) % 10 != totals
    assert 0.02 < wrong.float().mean() < 0.06
    assert 0.3 < float((~wrong.any(1)).float().mean()) < 0.5


def test_free_tokens_are_any_digits_after_half_of_the_totals() -> None:
    right = solutions(400, 0.0, torch.Generator().manual_seed(0), free=True)
    given, answer, half = right[:, :DIGITS], right[:, DIGITS + 1 : -1], DIGITS // 2
    equal = given.cumsum(1) % 10 == answer
    assert equal[:, :half].all()
    assert 0.05 < equal[:, half:].float().mean() < 0.15
    assert is_right([3, 5, END], (ANY, 5, END))
    assert not is_right([3, 4, END], (ANY, 5, END))
    assert not is_right([3, 5], (ANY, 5, END))
