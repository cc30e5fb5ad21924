"""The whole system on the bundled example, as a user runs it: it learns, it stops and resumes, it survives kill -9.

One run in three parts, because starting an engine takes half a minute: Ctrl-C after a few steps; called again, by the command
of the README, and the learner killed; then to the end.
"""

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.command.redis_server import RedisServer
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.summary import newest
from services.streams.names import PROMPTS, SCORED, TRAJECTORIES
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisStream
from services.wire.codec import decode
from services.wire.prompt import Prompt
from services.wire.score import ScoredGroup
from services.wire.trajectory import Group
from tests.system.conftest import RATCHET, ROOT, Ratchet
from tests.system.watching import Answer, Watching, is_installed

STEPS = 60
RUN = "examples/addition/addition.toml"


@dataclass
class Story:
    """What the three parts of the run left behind."""

    folder: RunFolder
    options: list[str]
    interrupted_code: int
    interrupted_at: int
    killed_after: int
    final_code: int
    final_output: str
    answers: list[Answer]
    """What a Prometheus that watched all of it says to every query of the dashboards; none where it is not installed."""

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.folder.summary.read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    @property
    def steps(self) -> list[dict[str, Any]]:
        return newest(read_json_lines(self.folder.steps), "step")


def last_step(folder: RunFolder) -> int:
    rows = read_json_lines(folder.steps)
    return rows[-1]["step"] if rows else 0


def left_on_the_streams(folder: RunFolder) -> set[int]:
    """Sequence numbers of the training groups that the run's own server holds, wherever they are."""
    found = set()
    with RedisServer(folder.redis) as server:
        connection = RedisConnection(server.url, deadline_s=10.0)
        kinds: tuple[tuple[str, type[Prompt | Group | ScoredGroup]], ...] = (
            (PROMPTS, Prompt),
            (TRAJECTORIES, Group),
            (SCORED, ScoredGroup),
        )
        for name, what in kinds:
            for payload in RedisStream(connection, folder.path.name, name, "look", 60.0).peek(10_000):
                entry = decode(payload, what)
                prompt = (
                    entry if isinstance(entry, Prompt) else (entry if isinstance(entry, Group) else entry.group).prompt
                )
                found.add(prompt.sequence_number)
        connection.close()
    return found


def until(condition: Callable[[], bool], process: "subprocess.Popen[str]", within_s: float) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode}: {process.communicate()}"
        assert time.monotonic() < end, f"not within {within_s} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def story(example: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Story:
    runs = tmp_path_factory.mktemp("runs")
    folder = RunFolder(runs / "addition")
    overrides = [
        f"runs_folder={runs}",
        f"learner.steps={STEPS}",
        "learner.checkpoint.every_steps=10",
        "learner.optimizer.warmup_steps=5",
        "evaluation.every_steps=1000",
        "deadlines.lease_s=5.0",
        "price.gpu_hour=2.0",
    ]
    options = [part for override in overrides for part in ("--set", override)]

    def started(*command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
        )

    with ExitStack() as watched:
        watching = watched.enter_context(Watching(runs / "prometheus", folder.services)) if is_installed() else None
        first = started(RATCHET, "up", RUN, *options)
        until(lambda: last_step(folder) >= 4, first, within_s=180)
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=90)
        interrupted_at = last_step(folder)

        second = started("make", "demo", f"OPTIONS={shlex.join(options)}")
        until(lambda: last_step(folder) >= interrupted_at + 13, second, within_s=180)
        killed_after = last_step(folder)
        os.kill(json.loads((folder.services / "learner.json").read_text(encoding="utf-8"))["pid"], signal.SIGKILL)
        output, _ = second.communicate(timeout=400)
        print(output)
        answers = watching.answers() if watching else []
        return Story(
            folder, options, first.returncode, interrupted_at, killed_after, second.returncode, output, answers
        )


def test_ctrl_c_stops_with_a_checkpoint_and_the_same_command_goes_on(story: Story) -> None:
    assert story.interrupted_code == 130
    attempts = {row["attempt"]: row["step"] for row in reversed(read_json_lines(story.folder.steps))}
    assert attempts[2] == story.interrupted_at + 1  # first step of the second start


def test_accuracy_rises(story: Story) -> None:
    assert story.final_code == 0, story.final_output
    summary = story.summary
    assert summary["steps"] == STEPS
    assert summary["accuracy_before"] <= 0.5
    assert summary["accuracy_after"] >= summary["accuracy_before"] + 0.08


def test_a_killed_learner_takes_back_what_no_checkpoint_holds_and_loses_nothing(story: Story) -> None:
    third = [row["step"] for row in read_json_lines(story.folder.steps) if row["attempt"] == 3]
    assert third[0] <= story.killed_after + 1  # it went back to a checkpoint
    assert third[0] % 10 == 1 or third[0] == story.interrupted_at + 1
    groups = story.summary["groups"]
    dropped = sum(groups["dropped"].values())
    assert groups["issued"] == groups["trained"] + dropped + groups["dead"] + groups["outstanding"]
    consumed = [number for row in story.steps for number in row["consumed_groups"]]
    assert len(consumed) == len(set(consumed))  # no group twice
    assert len(consumed) == groups["trained"] + dropped
    assert groups["dead"] == 0
    unconsumed = set(range(groups["issued"])) - set(consumed)
    assert len(unconsumed) == groups["outstanding"]
    assert left_on_the_streams(story.folder) >= unconsumed  # none lost, not at the stop either


def test_it_was_asynchronous_and_within_its_bound(story: Story) -> None:
    lag = story.summary["lag_steps"]
    assert lag["mean"] > 0.5
    assert lag["max"] <= 2


def test_every_broadcast_was_proved(story: Story) -> None:
    assert story.summary["weight_syncs"] >= STEPS
    assert story.summary["weight_gap_nats_max"] < 1e-3


def test_the_summary_keeps_its_contract(story: Story) -> None:
    summary = story.summary
    assert summary.keys() >= {
        "accuracy_before", "accuracy_after", "steps", "wall_seconds", "sampled_tokens", "trained_tokens", "groups",
        "lag_steps", "ess_ratio", "weight_syncs", "weight_sync_seconds", "sampling_gap_seconds", "weight_gap_nats_max",
        "idle_ratio", "versions",
    }  # fmt: skip
    assert summary["groups"].keys() == {"issued", "trained", "dropped", "dead", "outstanding"}
    assert summary["lag_steps"].keys() == {"mean", "p95", "max"}
    assert summary["ess_ratio"].keys() == {"mean", "min"}
    assert summary["weight_sync_seconds"].keys() == summary["sampling_gap_seconds"].keys() == {"p50", "p95"}
    assert summary["idle_ratio"].keys() == {"learner", "rollout"}
    assert all(0 <= ratio <= 1 for ratio in summary["idle_ratio"].values())


def test_make_demo_runs_the_bundled_example(story: Story) -> None:
    assert f"run folder {story.folder.path}" in " ".join(story.final_output.split())
    assert "held-out accuracy after" in story.final_output


def test_what_a_run_leaves(story: Story) -> None:
    assert story.folder.picture.stat().st_size > 10_000
    assert list(story.folder.tensorboard.glob("events.out.tfevents.*"))
    assert not story.folder.redis_url.exists()


def test_the_exported_model_loads_in_transformers(story: Story) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(story.folder.export)
    tokenizer = AutoTokenizer.from_pretrained(story.folder.export)
    assert model.num_parameters() > 1000
    assert tokenizer.encode("11+11=", add_special_tokens=False)


def test_a_finished_run_starts_nothing(story: Story, ratchet: Ratchet) -> None:
    result = ratchet("up", RUN, *story.options)
    assert result.returncode == 0
    assert "is finished" in result.stdout


def test_status_says_where_it_stands(story: Story, ratchet: Ratchet) -> None:
    result = ratchet("status", story.folder.path)
    assert result.returncode == 0
    assert f"step {STEPS} of {STEPS}" in result.stdout
    assert "not running" in result.stdout


def test_eval_measures_the_exported_model(story: Story, ratchet: Ratchet) -> None:
    """The engine loads the exported folder, and the answer agrees with the run's own last evaluation."""
    result = ratchet("eval", RUN, "--model", story.folder.export, *story.options, within_s=180)
    assert result.returncode == 0, result.stdout + result.stderr
    measured = float(result.stdout.split("avg@4 ")[1].split(",")[0])
    assert abs(measured - story.summary["accuracy_after"]) < 0.04


@pytest.mark.skipif(not is_installed(), reason="prometheus is not installed (Debian: apt-get install prometheus)")
def test_every_query_of_every_dashboard_finds_the_run(story: Story) -> None:
    assert len(story.answers) > 100
    assert [f"{a.dashboard}: {a.panel}: {a.query}: {a.fault or 'nothing'}" for a in story.answers if a.is_wrong] == []


def test_nothing_is_left_running(story: Story) -> None:
    running = []
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):  # as `ps` does, which a bare machine lacks
        with suppress(OSError):  # it ended just now
            running.append(arguments.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    assert running
    assert [line for line in running if str(story.folder.path) in line] == []
