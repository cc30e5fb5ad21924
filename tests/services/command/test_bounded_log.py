"""No log of a run fills the disk."""

from pathlib import Path

from services.command.bounded_log import bound_log


def test_a_log_that_grows_is_moved_aside_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "noisy.log"
    bound_log(path, 10)
    with path.open("ab") as lines:
        for number in range(3):
            lines.write(b"%d: a line\n" % number)
            lines.flush()
            bound_log(path, 15)
    assert path.read_bytes() == b"2: a line\n"
    assert (tmp_path / "noisy.log.1").read_bytes() == b"0: a line\n1: a line\n"
