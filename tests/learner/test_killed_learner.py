"""A learner process that a group kills is started again by the supervisor until the group is found; then the run goes on."""

import time
from functools import partial
from pathlib import Path

import pytest

from services.command.run_processes import progress, tries, write_settings
from services.command.supervisor import RESTARTS, Supervisor
from services.entry import DONE
from services.run.audit import audit
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.streams.redis_connection import RedisConnection
from tests.forking import forking
from tests.learner.killed_learner import KILLED, MARKED, ForkedLearner, config_of

NAME = "killed-learner"


def test_a_group_that_ends_the_process_is_found_within_the_rules_of_the_supervisor(
    tmp_path: Path, redis_url: str, redis_connection: RedisConnection, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(tmp_path, NAME)
    folder = RunFolder(config.folder)
    folder.path.mkdir(parents=True)
    write_settings(config, folder)
    learner = ForkedLearner(
        "learner", [], folder.logs / "learner.log", {}, context=forking(), arguments=(tmp_path, NAME, redis_url)
    )
    end_s = time.monotonic() + 240
    supervisor = Supervisor(
        learner, [], shutdown_s=10, progress=partial(progress, folder), tries=partial(tries, folder)
    )
    code = supervisor.run(lambda: time.monotonic() > end_s, lambda: None)
    assert code == DONE, learner.log_path.read_text()
    assert learner.starts > RESTARTS  # deaths of trials are not counted
    assert (
        caplog.text.count(f"learner ended with code {KILLED} while it tried step 3 with 1 of the groups that may") == 2
    )
    found = audit(folder.path, redis_connection)
    assert found.is_clean, found.problems
    fates = {number: one.what for number, one in found.settled.items()}
    assert [number for number, what in fates.items() if what == "dead"] == [MARKED]
    assert {fates[number] for number in (4, 6, 7)} == {"trained"}
    assert "killed the learner" in found.fate(MARKED)
    assert max(row["step"] for row in read_json_lines(folder.steps)) == config.learner.steps
