"""A scored group whose parts do not fit together is refused before anything learns from it."""

import msgspec
import pytest

from services.errors import WireError
from services.wire.codec import Array
from services.wire.score import ScoredGroup
from tests.learner.tiny import scored_group

WHOLE: ScoredGroup = scored_group(0, rewards=[1.0, 0.0])


def with_first_trajectory(**changes: object) -> ScoredGroup:
    first, *others = WHOLE.group.trajectories
    changed = msgspec.structs.replace(first, **changes)
    return msgspec.structs.replace(WHOLE, group=msgspec.structs.replace(WHOLE.group, trajectories=(changed, *others)))


def test_a_whole_group_passes() -> None:
    WHOLE.check()


def test_a_score_for_each_trajectory_is_needed() -> None:
    with pytest.raises(WireError, match="2 trajectories came with 1 scores from verifier v"):
        msgspec.structs.replace(WHOLE, scores=WHOLE.scores[:1]).check()


def test_a_log_prob_for_each_token_is_needed() -> None:
    with pytest.raises(WireError, match=r"response 0 has \d+ tokens and 0 behavior log-probs"):
        with_first_trajectory(behavior_logp=Array.of([], "<f4")).check()


def test_spans_have_to_cover_the_response() -> None:
    with pytest.raises(WireError, match="version spans"):
        with_first_trajectory(spans=()).check()


def test_a_reward_for_each_response_is_needed() -> None:
    scores = (msgspec.structs.replace(WHOLE.scores[0], verdict="timeout", reward=None), *WHOLE.scores[1:])
    with pytest.raises(WireError, match=r'response 0 has no reward \(verdict "timeout"\) from verifier v'):
        msgspec.structs.replace(WHOLE, scores=scores).check()
