"""Numbers are written in one way wherever a person reads them."""

from services.command.audit import said as audit_said
from services.command.live_display import group_counts
from services.numbers import count, number
from services.run.audit import Audit
from services.run.settled import Settlement
from services.run.waiting import Waiting


def test_thousands_have_commas_and_what_nobody_knows_is_a_dash() -> None:
    assert [number(value) for value in (0.0, 0.12345, -1234.5, 1234567.0, None)] == [
        "0.000",
        "0.123",
        "-1,234.500",
        "1,234,567.000",
        "-",
    ]
    assert number(12345.678, 1) == "12,345.7"
    assert [count(value) for value in (0, 999, 1000, 3961.0, 1234567, None)] == [
        "0",
        "999",
        "1,000",
        "3,961",
        "1,234,567",
        "-",
    ]


def test_what_is_said_of_a_run_has_them() -> None:
    groups = {"trained": 123456, "dropped": {"stale": 1000, "cut": 234}, "dead": 0, "outstanding": 3961}
    assert group_counts(groups) == "123,456 trained, 1,234 dropped, 0 dead, 3,961 outstanding"
    waiting = Waiting(
        step=2000, usable=1, needed=1024, unusable="", outstanding=3961, confirmed=True, depths={"prompts": 2000}
    )
    assert waiting.said() == "1 of 1,024 there; 3,961 outstanding (2,000 to be sampled)"
    settled = {one: Settlement("trained", "", 1, 1) for one in range(1500)}
    found = Audit("big", 1500, settled, {}, {}, [], {}, starts=1, taken_back=0)
    assert audit_said(found).splitlines()[:2] == [
        "run big: 1,500 groups issued in 1 start of the learner",
        "  trained      1,500",
    ]
