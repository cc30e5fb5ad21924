from pathlib import Path

from tests.verifier.sandbox import test_attacks, test_bounds


def test_every_attack_is_on_the_page_about_the_sandbox() -> None:
    page = Path(__file__).parents[3].joinpath("docs", "sandbox.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")}
    attacks = {
        *test_attacks.REACHES,
        *(test_bounds.WRONG_FUNCTIONS | test_bounds.RIGHT_FUNCTIONS | test_bounds.NOT_LOADED),
        *(test_bounds.WRONG_PROGRAMS | test_bounds.RIGHT_PROGRAMS),
    }
    assert attacks - rows == set()
    assert len(attacks) >= 40
