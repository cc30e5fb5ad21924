"""Addresses are announced in files that are whole or not there."""

from pathlib import Path

from services.run.addresses import addresses, announce_address


def test_what_was_announced_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "services"
    announce_address(folder, "learner", "http://127.0.0.1:1")
    announce_address(folder, "verifier-0", "http://127.0.0.1:2")
    announce_address(folder, "learner", "http://127.0.0.1:3")
    assert addresses(folder) == {"learner": "http://127.0.0.1:3", "verifier-0": "http://127.0.0.1:2"}


def test_a_file_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".learner.json").write_text('{"url": "htt', encoding="utf-8")
    assert addresses(tmp_path) == {}


def test_without_a_folder_nothing_is_announced() -> None:
    announce_address(None, "learner", "http://127.0.0.1:1")
