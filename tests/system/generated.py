"""The part of a page that a program writes, between two comments."""

from pathlib import Path


def write_part(page: Path, begin: str, end: str, text: str) -> None:
    """Put `text` between these two lines of the page, in place of what is there."""
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"{page} lacks the lines {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")
