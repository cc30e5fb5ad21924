"""A prompt is a function of its number; issuing may be repeated."""

import itertools
from pathlib import Path

import pytest

from learner.intake.issuer import PromptIssuer, PromptSource
from services.wire.codec import decode
from services.wire.prompt import Prompt
from tests.fakes.streams import MemoryIssueLog, MemoryStream
from tests.learner.small_run import PROBLEMS, small_config, token_ids


class Bench:
    def __init__(self, folder: Path) -> None:
        self.stream = MemoryStream("prompts")
        self.log = MemoryIssueLog(self.stream)
        self.issuer = self.restarted(folder)

    def restarted(self, folder: Path) -> PromptIssuer:
        return PromptIssuer(small_config(folder), [PromptSource(PROBLEMS, token_ids)], self.log)

    def issued(self) -> list[Prompt]:
        return [decode(payload, Prompt) for payload in self.stream.peek(100)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_it_issues_what_admission_allows_and_counts_on_across_a_restart(bench: Bench, tmp_path: Path) -> None:
    def all_outstanding(issued: int) -> int:
        return issued

    assert bench.issuer.issue(bench.issuer.issued_count(), all_outstanding, 0, 0, max_lag=1) == 4
    assert bench.issuer.issue(bench.issuer.issued_count(), all_outstanding, 0, 0, max_lag=1) == 4
    again = bench.restarted(tmp_path)
    assert again.issue(again.issued_count(), lambda issued: issued - 1, 0, 0, max_lag=1) == 5
    assert [prompt.sequence_number for prompt in bench.issued()] == [0, 1, 2, 3, 4]


def test_each_epoch_goes_through_every_problem_once(bench: Bench) -> None:
    rows = [bench.issuer.prompt(number).row for number in range(15)]
    for epoch in range(3):
        assert sorted(rows[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]


def test_a_prompt_depends_on_its_number_alone_and_no_two_groups_share_a_seed(bench: Bench, tmp_path: Path) -> None:
    other = bench.restarted(tmp_path)
    first = [bench.issuer.prompt(number) for number in range(20)]
    assert first == [other.prompt(number) for number in range(20)]
    seeds = sorted(prompt.seed for prompt in first)
    assert all(later - earlier >= first[0].group_size for earlier, later in itertools.pairwise(seeds))


def test_no_two_trajectories_of_a_long_run_share_a_seed(bench: Bench) -> None:
    numbers = [*range(5000), *range(10**6, 10**6 + 2048), 2**26, 2**26 + 2048]
    groups = [bench.issuer.prompt(number) for number in numbers]
    seeds = [group.seed + trajectory for group in groups for trajectory in range(group.group_size)]
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)  # torch's generator on CPU reads 32 bits


def test_what_is_issued_again_does_not_change_the_count_of_a_server_that_has_it(bench: Bench) -> None:
    bench.issuer.issue(bench.issuer.issued_count(), lambda issued: issued, 0, 0, max_lag=1)
    bench.issuer.issue_again([1], 3)
    assert [prompt.sequence_number for prompt in bench.issued()] == [0, 1, 2, 3, 1]
    assert bench.issuer.issued_count() == 4
