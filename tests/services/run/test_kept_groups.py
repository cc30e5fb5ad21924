"""The folder of kept groups stays within its limit, and what is damaged in it is passed over."""

from collections.abc import Iterator
from pathlib import Path

from services.run.kept_groups import STEPS_AT_LEAST, KeptGroup, kept_steps, read_step, write_step
from tests.services.page.written import kept, response


def long_group(step: int, number: int) -> KeptGroup:
    pieces = [f"{(number * 7919 + i * 104729) % 99991}" for i in range(2000)]
    return KeptGroup(
        **{
            **{name: getattr(kept(step, number, []), name) for name in KeptGroup.__struct_fields__},
            "responses": [response(1.0, pieces=pieces)],
        }
    )


def test_the_oldest_steps_make_room(tmp_path: Path) -> None:
    limit = 20 * 30_000
    for step in range(1, 60):
        assert write_step(tmp_path, step, [long_group(step, step)], limit) == 1
    steps = [int(path.name[5:13]) for path in kept_steps(tmp_path)]
    assert steps == list(range(steps[0], 60))
    assert STEPS_AT_LEAST <= len(steps) < 59
    assert sum(path.stat().st_size for path in kept_steps(tmp_path)) <= limit


def test_one_step_takes_its_part_at_most(tmp_path: Path) -> None:
    made = []

    def groups() -> Iterator[KeptGroup]:
        for number in range(100):
            made.append(number)
            yield long_group(1, number)

    written = write_step(tmp_path, 1, groups(), 20 * 100_000)
    (path,) = kept_steps(tmp_path)
    assert 1 <= written < 20
    assert len(made) == written + 1  # what does not fit is not made
    assert path.stat().st_size <= 100_000
    assert [group.group_id for group in read_step(path)] == [f"train-{number}" for number in range(written)]


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.jsonl.gz"
    assert read_step(path) == []
    for damage in (b"", b"no gzip", b"\x1f\x8b\x08"):
        path.write_bytes(damage)
        assert read_step(path) == []
    write_step(tmp_path, 1, [kept(1, 1, [1.0])], 2**20)
    path.write_bytes(path.read_bytes()[:-9])
    assert read_step(path) == []
