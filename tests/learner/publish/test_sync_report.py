"""The run folder says what the next start of the learner has to know of the last broadcast."""

from pathlib import Path

from learner.publish.sync_report import LastSync, last_sync
from services.run.json_lines import JsonLines
from services.wire.weights import Gap


def test_the_last_broadcast_names_the_last_generation_and_what_is_rounding(tmp_path: Path) -> None:
    path = tmp_path / "syncs.jsonl"
    assert last_sync(path) == LastSync(0, None)
    with JsonLines(path) as lines:
        for generation in (1, 1, 3):
            lines.write(pg_generation=generation, rounding_nats=[0.01, 0.02, generation / 10], filler="x" * 40_000)
    assert last_sync(path) == LastSync(3, Gap(0.01, 0.02, 0.3))
    with path.open("a") as file:
        file.write('{"pg_generation": 4')  # cut off by a crash
    assert last_sync(path) == LastSync(3, Gap(0.01, 0.02, 0.3))


def test_a_run_that_did_not_record_what_is_rounding_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "syncs.jsonl"
    with JsonLines(path) as lines:
        lines.write(pg_generation=5)
    assert last_sync(path) == LastSync(5, None)
