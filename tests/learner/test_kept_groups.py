"""What the page's inspector shows of a token is what the step saw of it."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from learner.batch.sift import sift, tally
from learner.intake.gathering import Gathered
from learner.kept_groups import STEPS_IN_HAND, KeptGroups
from learner.ranks import TakenStep, Team
from services.config import RunConfig
from services.run.kept_groups import kept_steps, read_step
from services.wire.score import ScoredGroup
from tests.fakes.train_engine import BigramEngine
from tests.learner.small_run import small_config
from tests.learner.tiny import scored_group


def text_of(token_ids: Sequence[int]) -> str:
    return "".join(chr(97 + one) for one in token_ids)


def gather(groups: list[ScoredGroup], config: RunConfig) -> Gathered:
    sifted = [sift(group, 2, config.learner) for group in groups]
    drops: dict[str, str] = {one.prompt.group_id: one.drop for one in sifted if one.drop is not None}
    return Gathered(groups, [one for one in sifted if one.drop is None], tally(groups, sifted), drops)


def step(config: RunConfig, gathered: Gathered, engine: BigramEngine) -> TakenStep:
    return Team(config, engine).step(gathered.kept, gathered.tally, policy_version=2, learning_rate=0.1)


@pytest.mark.parametrize("mini_batches", [1, 2])
def test_each_token_has_the_figures_of_the_step_that_consumed_it(tmp_path: Path, mini_batches: int) -> None:
    config = small_config(
        tmp_path, "learner.max_lag=2", "learner.stale_tokens=mask", f"learner.mini_batches={mini_batches}"
    )
    groups = [
        scored_group(
            0,
            rewards=[1.0, 0.0, 1.0],
            prompt=[3],
            responses=[[1, 2], [4], [5, 6]],
            versions=[[(1, 1), (2, 1)], [(2, 1)], [(2, 2)]],
        ),
        scored_group(1, rewards=[0.0, 0.0], versions=None, responses=[[1], [2]]),
        scored_group(
            2, rewards=[0.0, 1.0], prompt=[7], responses=[[8, 9, 1], [2]], versions=[[(-1, 1), (0, 2)], [(2, 1)]]
        ),
    ]
    engine = BigramEngine()
    before = engine.sequence_logps([[3, 1, 2]])[0], engine.sequence_logps([[3, 5, 6]])[0]
    gathered = gather(groups, config)
    taken = step(config, gathered, engine)
    kept = KeptGroups(tmp_path / "groups", 1, text_of)
    assert kept.offer(3, gathered, taken.seen)
    kept.close()
    (path,) = kept_steps(tmp_path / "groups")
    found = {group.group_id: group for group in read_step(path)}
    assert set(found) == {"train-0", "train-1", "train-2"}
    first = found["train-0"]
    assert (first.step, first.prompt, first.dropped, first.replica_id) == (3, "d", None, "r")
    assert [one.pieces for one in first.responses] == [["b", "c"], ["e"], ["f", "g"]]
    assert first.responses[0].spans == [(1, 0, 1), (2, 1, 2)]
    for response, expected in zip(first.responses[::2], before, strict=True):
        assert response.current_logp == pytest.approx(expected, abs=1e-3)
        assert response.behavior_logp == pytest.approx(groups[0].group.trajectories[0].behavior_logp.numpy(), abs=9)
    assert [one.verdict for one in first.responses] == ["correct", "incorrect", "correct"]
    dropped = found["train-1"]
    assert dropped.dropped == "zero_variance"
    assert dropped.responses[0].current_logp is None
    masked = found["train-2"].responses[0].one_way_weight
    assert masked is not None
    assert masked[0] == 0.0  # sampled three steps ago: it does not count
    assert 0.0 not in masked[1:]


def test_nothing_is_copied_where_nothing_is_kept(tmp_path: Path) -> None:
    config = small_config(tmp_path, "learner.kept_groups_mib=0", "learner.max_lag=2")
    gathered = gather([scored_group(0, rewards=[1.0, 0.0], prompt=[3], responses=[[1], [2]])], config)
    assert step(config, gathered, BigramEngine()).seen is None


def test_a_slow_disk_holds_no_step_up(tmp_path: Path) -> None:
    config = small_config(tmp_path, "learner.max_lag=2")
    gathered = gather([scored_group(0, rewards=[1.0, 0.0], prompt=[3], responses=[[1], [2]])], config)

    def slow(token_ids: Sequence[int]) -> str:
        time.sleep(0.2)
        return ""

    kept = KeptGroups(tmp_path / "groups", 1, slow)
    taken = [kept.offer(number, gathered, None) for number in range(1, 20)]
    assert not all(taken)
    assert taken.count(True) <= STEPS_IN_HAND + 1
    kept.close()


def test_a_disk_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = small_config(tmp_path, "learner.max_lag=2")
    (tmp_path / "groups").touch()
    kept = KeptGroups(tmp_path / "groups", 1, text_of)
    assert kept.offer(1, gather([scored_group(0, rewards=[1.0, 0.0], prompt=[3], responses=[[1], [2]])], config), None)
    kept.close()
    assert "the groups of step 1 are not kept for the page" in caplog.text
