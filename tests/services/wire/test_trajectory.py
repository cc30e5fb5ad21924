"""Version spans say under which policy version each token was sampled, or are refused."""

import pytest

from services.errors import WireError
from services.wire.codec import Array
from services.wire.trajectory import Trajectory, VersionSpan


def trajectory(*spans: tuple[int, int, int], tokens: int = 4) -> Trajectory:
    return Trajectory(
        token_ids=Array.of(range(tokens), "<i4"),
        behavior_logp=Array.of([-1.0] * tokens, "<f4"),
        spans=tuple(VersionSpan(*span) for span in spans),
        finish_reason="stop",
        text="",
    )


def test_each_token_has_the_version_of_its_span() -> None:
    assert trajectory((3, 0, 1), (5, 1, 4)).policy_versions().tolist() == [3, 5, 5, 5]


def test_a_response_without_tokens_has_no_versions() -> None:
    assert trajectory(tokens=0).policy_versions().tolist() == []


@pytest.mark.parametrize("spans", [[(3, 1, 4)], [(3, 0, 2), (4, 3, 4)], [(3, 0, 0), (3, 0, 4)], [(3, 0, 3), (4, 2, 4)]])
def test_spans_with_gaps_or_overlaps_are_refused(spans: list[tuple[int, int, int]]) -> None:
    with pytest.raises(WireError, match=r"do not cover 0\.\.4 in order"):
        trajectory(*spans).policy_versions()


def test_spans_that_end_early_are_refused() -> None:
    with pytest.raises(WireError, match="end at 3, the response at 4"):
        trajectory((3, 0, 3)).policy_versions()
