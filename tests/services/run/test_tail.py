"""What is appended is read once, also after the file was begun again."""

from pathlib import Path

from services.run.tail import Tail


def test_a_file_that_was_begun_again_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"one\ntwo\n")
    tail = Tail(path).from_the_start()
    assert tail.lines() == b"one\ntwo"
    path.write_bytes(b"three\n")
    assert tail.lines() == b"three"
    assert tail.lines() == b""
