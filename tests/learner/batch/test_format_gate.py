"""Forms that responses must have."""

import math
import time

import pytest

from learner.batch.format_gate import capped_at
from services.config.shaping import FormatGate


def test_the_lowest_reward_of_the_missing_forms_is_the_most() -> None:
    tags, number = (
        FormatGate(pattern="<think>.*</think>", reward=0.2),
        FormatGate(pattern="[0-9]+", match="whole", reward=-1.0),
    )
    assert capped_at([tags], "<think>a\nb</think> 7") == math.inf
    assert capped_at([tags, number], "<think>a</think> 7") == -1.0
    assert capped_at([number], " 42\n") == math.inf
    assert capped_at([tags, number], "seven") == -1.0
    assert capped_at([tags], "seven") == 0.2
    assert capped_at([], "anything") == math.inf


def test_a_pattern_that_takes_for_ever_costs_a_moment_and_no_reward(caplog: pytest.LogCaptureFixture) -> None:
    start = time.thread_time()
    assert capped_at([FormatGate(pattern="(a|b|ab)*[cd]", match="whole")], "ab" * 5000) == math.inf
    assert time.thread_time() - start < 5.0
    assert "took more than" in caplog.text
