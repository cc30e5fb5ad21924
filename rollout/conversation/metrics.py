"""What a replica exports about conversations."""

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from rollout.environments import Start, Turn

OPEN = Gauge(
    "ratchet_rollout_open_conversations", "Conversations in progress, those that wait for the environment included."
)
TURNS = Histogram(
    "ratchet_rollout_turns",
    "Messages of the policy in one conversation.",
    buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128),
)
CONVERSATION_SECONDS = Histogram(
    "ratchet_rollout_conversation_seconds",
    "Seconds from the beginning of a conversation to its end, given-up attempts not included.",
    buckets=(0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600),
)
ENVIRONMENT_SECONDS = Histogram(
    "ratchet_rollout_environment_seconds",
    "Seconds that an environment took to answer. Its sum over that of ratchet_rollout_conversation_seconds is the share of their "
    "time that conversations wait for it.",
    ["call"],
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
READ_TOKENS = Counter(
    "ratchet_rollout_read_tokens", "Tokens of environments that conversations read between two messages."
)
FAULTS = Counter(
    "ratchet_rollout_environment_faults",
    "Conversations that were begun again or given up because the environment failed, by how: crashed (raised), late (beyond "
    "environment.turn_s), flooded (beyond environment.max_words_tokens), malformed (what it answered is not an answer).",
    ["fault"],
)
TOOL_ERRORS = Counter(
    "ratchet_rollout_tool_errors", "Calls of tools that failed, as the environment says, by tool.", ["tool"]
)
TOOL_SECONDS = Histogram(
    "ratchet_rollout_tool_seconds",
    "Seconds that a call of a tool took, as the environment says, by tool.",
    ["tool"],
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
REWRITTEN = Counter(
    "ratchet_rollout_rewritten_histories",
    "Turns whose history, as the chat template renders it or the environment rewrites it, does not go on from what was sampled: "
    "the sequence begins again.",
)
REPLACED_THREADS = Counter(
    "ratchet_rollout_replaced_environment_threads",
    "Threads of environments that were left behind because a call blocked them.",
)
KINDS = ("crashed", "late", "flooded", "malformed")
for _call in ("reset", "step"):
    ENVIRONMENT_SECONDS.labels(_call)
for _kind in KINDS:
    FAULTS.labels(_kind)


def count_tools(answer: Turn, start: Start) -> None:
    """Count calls by the tools that the environment named when it began: what it says later could be any text."""
    known = {tool.get("function", tool).get("name") for tool in start.tools if isinstance(tool, dict)}
    info: Any = answer.info if isinstance(answer.info, dict) else {}
    failed, seconds = info.get("tool_errors", ()), info.get("tool_seconds", {})
    for name in failed if isinstance(failed, list | tuple) else ():
        TOOL_ERRORS.labels(name if name in known or name == "unreadable" else "unknown").inc()
    for name, took in seconds.items() if isinstance(seconds, dict) else ():
        if name in known and isinstance(took, list):
            for one in took:
                if isinstance(one, float):
                    TOOL_SECONDS.labels(name).observe(one)
