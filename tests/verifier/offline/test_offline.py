"""`ratchet verify`: as a user calls it, and its parts where a process for each case would be too slow."""

import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from services.errors import InputError
from services.wire.verdict import Score, Verdict
from verifier.contract import ScoreItem
from verifier.offline import __main__ as offline
from verifier.offline.lines import Defaults, Line, read_lines
from verifier.offline.report import KEPT, VERDICTS, Report, describe, kind_of, quantile

ROOT = Path(__file__).parents[3]
RATCHET = str(Path(sys.executable).parent / "ratchet")
DEFAULTS = Defaults("exact", {"strip": False}, max_depth=4)


def verify(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [RATCHET, "verify", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=ROOT)


def written(path: Path, *lines: Any) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def lines_of(path: Path) -> list[Line]:
    return list(read_lines(path, DEFAULTS, set()))


def row(response: str, expected: str | None = None, **members: Any) -> dict[str, Any]:
    return {"response": response, "reference": "12"} | ({"expected": expected} if expected else {}) | members


def test_expectations_that_are_not_met_are_counted_shown_and_end_with_exit_code_1(tmp_path: Path) -> None:
    file = written(
        tmp_path / "answers.jsonl",
        row("12", "correct"),
        row(" 12", "incorrect", id="lenient"),
        row("12.0", "correct"),
        "",
        row("13", "incorrect", prompt="6 + 6?"),
        row("12", "correct", options={"fuzzy": True}),
        row("12", "error", reference=None),
        row("\\boxed{12}", "correct", grader="math"),
        row("12"),
    )
    out = tmp_path / "results.jsonl"
    result = verify(file, "--grader", "exact", "--options", "{}", "--processes", "1", "--out", out, "--errors")
    assert result.returncode == 1, result.stderr
    said = result.stdout
    assert "agreement 57.14 % (4 of 7)   false positives 1   false negatives 1" in said
    assert "line 2 ('lenient'): exact says correct, expected incorrect; response ' 12', reference '12'" in said
    assert "line 3: exact says incorrect, expected correct: answer '12.0'" in said
    assert "line 6: exact says error, expected correct: unknown options fuzzy" in said
    assert said.index("false positive: 1") < said.index("false negative: 1") < said.index("no verdict: 1")
    assert "members of the lines that were not read: prompt" in said
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["line"] for one in results] == [1, 2, 3, 5, 6, 7, 8, 9]
    assert [one["id"] for one in results[:2]] == ["1", "lenient"]
    verdicts = ["correct", "correct", "incorrect", "incorrect", "error", "error", "correct", "correct"]
    assert [one["verdict"] for one in results] == verdicts
    assert [one["reward"] for one in results] == [1.0, 1.0, 0.0, 0.0, None, None, 1.0, 1.0]
    assert results[0].keys() - {"expected"} == results[-1].keys()


def test_expectations_that_are_met_end_with_exit_code_0(tmp_path: Path) -> None:
    settings = (ROOT / "examples/addition/addition.toml").read_text(encoding="utf-8")
    run = written(tmp_path / "run.toml", settings, "[verifier.limits.math]", "response_characters = 20")
    file = written(
        tmp_path / "answers.jsonl",
        row("\\boxed{12}", "correct"),
        row("\\boxed{13}", "incorrect"),
        row("\\boxed{12}" + " " * 20, "incorrect"),
    )
    result = verify(file, "--config", run, "--processes", "1")
    assert result.returncode == 0, result.stderr
    assert "agreement 100.00 % (3 of 3)   false positives 0   false negatives 0" in result.stdout
    assert result.stderr == ""


def test_a_wrong_line_is_named_before_anything_is_graded(tmp_path: Path) -> None:
    file, out = written(tmp_path / "answers.jsonl", row("12"), row("12", "right")), tmp_path / "results.jsonl"
    result = verify(file, "--out", out)
    assert result.returncode == 2
    assert f"ratchet: {file}, line 2: Invalid enum value 'right' - at `$.expected`" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--grader", "maths"], 'no such grader; known: "choice"'),
        (["--options", "{"], "not JSON"),
        (["--options", "[1]"], "give a JSON object"),
        (
            ["--options", '{"tolerence": 1}'],
            "grader math: unknown options tolerence; this grader knows unboxed, tolerance",
        ),
        (["--options", '{"tolerance": 2}'], "grader math: option tolerance = 2.0 must be at least 0 and below 1"),
        (["--options", '{"tolerance": "much"}'], "grader math: options: Expected `float`, got `str`"),
        (["--grader", "exact", "--options", '{"pattern": "("}'], "option pattern = '(' is not a regular expression"),
        (
            ["--grader", "combine", "--options", '{"parts": [{"grader": "maths"}]}'],
            'there is no grader "maths" for a part',
        ),
        (
            ["--grader", "combine", "--options", '{"parts": [{"grader": "exact", "options": {"fuzzy": true}}]}'],
            "grader exact: unknown options fuzzy",
        ),
        (["--processes", "0"], "verifier.processes = 0: input should be greater than or equal to 1"),
        (["--deadline", "-1"], "verifier.item_deadline_s = -1.0: input should be greater than 0"),
        (["--out", "FILE"], "is the file that is graded"),
        (["--out", "/proc/nowhere"], "cannot be written"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "answers.jsonl", row("12"))
    given_ = [str(file) if argument == "FILE" else argument for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["ratchet verify", str(file), *given_])
    monkeypatch.setattr(offline, "quiet_logging", lambda: None)  # this process has the log of other tests
    with pytest.raises(InputError) as fault:
        offline.main()
    assert says in str(fault.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "Input data was truncated"),
        ("[]", "Expected `object`, got `array`"),
        ('{"response": "12"}', "missing required field `reference`"),
        ('{"response": 12, "reference": "12"}', "Expected `str`, got `int` - at `$.response`"),
        ('{"response": "12", "reference": NaN}', "invalid character"),
        ('{"response": "12", "reference": 1, "grader": "maths"}', 'unknown grader "maths"'),
        ('{"response": "12", "reference": [[[[[1]]]]]}', "more than 4 objects and arrays within each other"),
        ('{"response": "12", "reference": 1, "expectd": "correct"}', 'did you mean "expected"?'),
        ('{"response": "12", "reference": ' + "[" * 100_000, "recursion"),
    ],
)
def test_a_line_that_cannot_be_scored_is_named_with_its_fault(line: str, says: str, tmp_path: Path) -> None:
    file = written(tmp_path / "answers.jsonl", row("12"), "", line)
    with pytest.raises(InputError) as fault:
        lines_of(file)
    assert str(fault.value).startswith(f"{file}, line 3: ")
    assert says in str(fault.value)


def test_a_path_that_is_not_a_file_is_named(tmp_path: Path) -> None:
    for file, says in ((tmp_path, "is not a plain file"), (tmp_path / "missing", "No such file")):
        with pytest.raises(InputError, match=says):
            lines_of(file)


def test_an_empty_file_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no lines"):
        offline._checked(written(tmp_path / "empty.jsonl", "", " "), DEFAULTS, set())


def test_options_belong_to_the_grader_they_were_given_for(tmp_path: Path) -> None:
    file = written(
        tmp_path / "answers.jsonl",
        row("12"),
        row("12", options={}),
        row("12", grader="math"),
        row("12", grader="exact"),
    )
    found = [(line.item.grader, line.item.options) for line in lines_of(file)]
    assert found == [("exact", {"strip": False}), ("exact", {}), ("math", {}), ("exact", {"strip": False})]


def test_a_byte_order_mark_is_not_part_of_the_first_line(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(row("12", response_tokens=7)).encode() + b"\r\n")
    (line,) = lines_of(file)
    assert (line.number, line.item.response_tokens, line.item.id) == (1, 7, "1")


class FakeGrading:
    """Judges by the response, later for earlier batches; a `flaky` one only when asked again."""

    def __init__(self) -> None:
        self.largest = 0
        self.at_once = 0
        self.asked = 0

    async def score(self, items: list[ScoreItem]) -> list[Score]:
        self.largest = max(self.largest, len(items))
        self.at_once += 1
        assert self.at_once <= offline.BATCHES_AT_ONCE
        await asyncio.sleep(0.02 if self.asked % 2 else 0.0)
        self.asked += 1
        self.at_once -= 1
        return [score("timeout" if "flaky" in one.response and self.asked == 1 else "correct") for one in items]


def score(verdict: Verdict, detail: str = "") -> Score:
    reward = {"correct": 1.0, "incorrect": 0.0}.get(verdict)
    return Score(verdict=verdict, reward=reward, detail=detail, elapsed_s=0.001)


def line(number: int, response: str = "12", expected: Verdict | None = None) -> Line:
    return Line(number, ScoreItem(str(number), "exact", response, "12"), expected)


def all_scored(grading: FakeGrading, lines: list[Line], attempts: int = 1) -> list[tuple[Line, Score]]:
    async def collect() -> list[tuple[Line, Score]]:
        return [pair async for pair in offline._scored(grading, iter(lines), attempts)]  # type: ignore[arg-type]

    return asyncio.run(collect())


@pytest.mark.parametrize("count", [1, 9, 10, 11, 47])
def test_a_long_file_is_graded_in_its_order_and_never_held_as_a_whole(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "BATCH_LINES", 10)
    grading = FakeGrading()
    found = all_scored(grading, [line(number) for number in range(count)])
    assert [one.number for one, _ in found] == list(range(count))
    assert grading.largest <= 10


def test_a_response_without_a_verdict_is_asked_for_again_as_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifier.attempts.SECOND_ATTEMPT_S", 0.0)
    lines = [line(1), line(2, "flaky")]
    assert [given_.verdict for _, given_ in all_scored(FakeGrading(), lines, attempts=1)] == ["correct", "timeout"]
    assert [given_.verdict for _, given_ in all_scored(FakeGrading(), lines, attempts=2)] == ["correct", "correct"]


@pytest.mark.parametrize("expected", [*VERDICTS, None])
@pytest.mark.parametrize("given_", VERDICTS)
def test_every_disagreement_has_a_kind(expected: Verdict | None, given_: Verdict) -> None:
    kind = kind_of(expected, given_)
    report = Report()
    report.add(line(1, expected=expected), score(given_))
    assert report.met == (expected in (None, given_))
    if expected == given_:
        assert kind is None
    elif given_ in ("error", "timeout"):
        assert kind == "no verdict"
    elif expected is None:
        assert kind is None
    elif given_ == "correct":
        assert kind == "false positive"
    else:
        assert kind == ("false negative" if expected == "correct" else "other")


def shown(report: Report, *, every_disagreement: bool = False) -> str:
    said = io.StringIO()
    report.show(Console(file=said, width=100), every_disagreement=every_disagreement)
    return said.getvalue()


def test_agreement_is_never_rounded_up_to_all() -> None:
    report = Report()
    for number in range(30_000):
        report.add(line(number, expected="correct"), score("incorrect" if number == 7 else "correct"))
    assert "agreement 99.99 % (29,999 of 30,000)" in shown(report)


def test_what_is_kept_and_shown_of_many_disagreements_is_bounded() -> None:
    report = Report()
    for number in range(KEPT + 5):
        report.add(line(number, expected="incorrect"), score("correct"))
    assert f"and {KEPT:,} more" in shown(report)
    assert shown(report, every_disagreement=True).count("exact says correct") == KEPT
    assert "and 5 more" in shown(report, every_disagreement=True)


@given(st.text(max_size=400), st.text(max_size=20))
def test_every_response_is_shown_on_one_short_line_and_never_as_markup(text: str, name: str) -> None:
    shown_ = describe(
        Line(3, ScoreItem(name, "exact", text + "[red]", text), "correct"), score("incorrect", "no\nanswer")
    )
    assert len(shown_.splitlines()) == 1
    assert len(shown_) < 1000
    report = Report()
    report.add(Line(3, ScoreItem(name, "exact", text + "[red]", text), "correct"), score("incorrect"))
    assert "[red]" in shown(report)


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_is_the_smallest_value_that_this_share_does_not_exceed(values: list[float], share: float) -> None:
    found = quantile(sorted(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)
