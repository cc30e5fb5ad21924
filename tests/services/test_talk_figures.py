"""What conversations come to is added up over replicas, from what the real metrics say."""

from functools import partial

from prometheus_client import generate_latest

from rollout.conversation import metrics
from rollout.environments import Start, Turn
from services.command.scrape import parse
from services.page.scrape import by_label, figures_of
from services.talk_figures import talk_figures

TEXT = b"""
ratchet_rollout_open_conversations 3
ratchet_rollout_turns_sum 8
ratchet_rollout_turns_count 4
ratchet_rollout_conversation_seconds_sum 10
ratchet_rollout_environment_seconds_sum{call="reset"} 1
ratchet_rollout_environment_seconds_sum{call="step"} 3
ratchet_rollout_tool_seconds_sum{tool="python"} 6
ratchet_rollout_tool_seconds_count{tool="python"} 12
ratchet_rollout_tool_errors_total{tool="python"} 2
ratchet_rollout_tool_errors_total{tool="unreadable"} 1
ratchet_rollout_environment_faults_total{fault="late"} 5
ratchet_rollout_environment_faults_total{fault="crashed"} 0
"""


def test_two_replicas_are_added_up_by_the_page_and_by_the_display_alike() -> None:
    page = partial(by_label, figures_of(TEXT))
    found = talk_figures([lambda name, _: page(name)] * 2)
    assert found is not None
    assert found == talk_figures([parse(TEXT.decode()).by] * 2)
    assert (found.open, found.held, found.mean_turns, found.waiting_share) == (6, 8, 2.0, 0.4)
    assert [(tool.name, tool.calls, tool.mean_seconds, tool.errors) for tool in found.tools] == [
        ("python", 24, 0.5, 4),
        ("unreadable", 0, None, 2),
    ]
    assert found.said() == (
        "2.0 turns, 40% of the time in the environment; tool errors: python 4, unreadable 2; faults: late 10"
    )


def test_a_run_without_conversations_has_none() -> None:
    assert talk_figures([]) is None
    assert talk_figures([parse("ratchet_rollout_turns_count 0\n").by]) is None


def test_the_samples_are_those_that_replicas_export() -> None:
    metrics.TURNS.observe(3)
    tool = {"function": {"name": "calculator"}}
    metrics.count_tools(
        Turn(info={"tool_errors": ["calculator"], "tool_seconds": {"calculator": [0.5]}}), Start([], [tool])
    )
    found = talk_figures([parse(generate_latest().decode()).by])
    assert found is not None
    assert found.held >= 1
    assert "calculator" in {one.name for one in found.tools if one.calls and one.errors}
