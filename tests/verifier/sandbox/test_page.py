import builtins
import importlib
import re
from pathlib import Path

from tests.verifier.sandbox import test_attacks, test_bounds
from verifier.sandbox.runner import GIVEN_MODULES, GIVEN_NAMES

PAGE = Path(__file__).parents[3].joinpath("docs", "sandbox.md").read_text(encoding="utf-8")
LISTS = [line for line in PAGE.splitlines() if line.startswith("  - From ")]


def test_every_attack_is_on_the_page_about_the_sandbox() -> None:
    rows = {line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("| ")}
    attacks = {
        *test_attacks.REACHES,
        *(test_bounds.WRONG_FUNCTIONS | test_bounds.RIGHT_FUNCTIONS | test_bounds.NOT_LOADED),
        *(test_bounds.WRONG_PROGRAMS | test_bounds.RIGHT_PROGRAMS),
    }
    assert attacks - rows == set()
    assert len(attacks) >= 40


def test_every_name_that_programs_are_given_is_on_the_page_and_can_be_imported() -> None:
    shown = {line.partition(":")[0].strip(" -"): re.findall(r"`(\w+)`", line.partition(":")[2]) for line in LISTS}
    assert shown == {f"From `{module}`": names.split() for module, names in GIVEN_NAMES.items()}
    for module, names in GIVEN_NAMES.items():
        missing = [name for name in names.split() if not hasattr(importlib.import_module(module), name)]
        assert not missing
    (modules,) = re.findall(r"^  - Modules: ((?:.|\n    )*)$", PAGE, flags=re.MULTILINE)
    assert re.findall(r"`(\w+)`", modules) == GIVEN_MODULES.split()
    assert not set(GIVEN_MODULES.split()) & set(" ".join(GIVEN_NAMES.values()).split())
    assert not set(vars(builtins)) & set(" ".join(GIVEN_NAMES.values()).split())
