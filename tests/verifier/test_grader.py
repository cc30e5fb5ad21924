"""The base class of graders: what it gives, and what is said of a class that is not one."""

from typing import Any, ClassVar

import msgspec
import pytest

from verifier.grader import Grader, Judgment, ScoringFault, build_grader, load_grader


class Same(Grader, frozen=True):
    version: ClassVar[str] = "7"

    strip: bool = True

    def check(self, reference: Any) -> None:
        pass

    def score(self, response: str, reference: Any) -> Judgment:
        return Judgment(response == reference)


class Plain(msgspec.Struct, frozen=True):
    def check(self, reference: Any) -> None:
        pass

    def score(self, response: str, reference: Any) -> Judgment:
        return Judgment(True)


class Half(Grader, frozen=True):
    def check(self, reference: Any) -> None:
        pass


def test_a_subclass_has_what_the_service_asks_for() -> None:
    loaded = load_grader(f"{__name__}:Same")
    assert (loaded.lane, loaded.version, loaded.cached) == ("process", "7", False)
    loaded.warm_up()
    assert loaded.unavailable() == ""
    assert loaded.__struct_fields__ == ("strip", "thought")


@pytest.mark.parametrize("name", ["Plain", "Judgment"])
def test_a_class_of_another_kind_gets_an_error_that_says_what_to_write(name: str) -> None:
    with pytest.raises(TypeError, match=rf"write `class {name}\(Grader, frozen=True\)`.*docs/writing-a-grader\.md"):
        load_grader(f"{__name__}:{name}")


def test_a_method_that_is_missing_is_named() -> None:
    with pytest.raises(TypeError, match="Half has no method score"):
        load_grader(f"{__name__}:Half")


@pytest.mark.parametrize(
    ("options", "says"),
    [({"strict": True}, "unknown options strict; this grader knows strip"), ({"strip": 1}, "Expected `bool`")],
)
def test_options_that_cannot_be_used_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ScoringFault, match=says):
        build_grader(Same, options)
    assert not build_grader(Same, {"strip": False}).strip
