import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier.sandbox.machine import sandbox_or_skip
from verifier.grader import ScoringFault, build_grader
from verifier.graders.code.grader import CodeTests
from verifier.graders.code.program import program_in
from verifier.graders.code.results import same, same_output

SQUARES = {"kind": "function", "entry_point": "f", "tests": [{"args": [x], "expected": x * x} for x in (3, 1, 2)]}
ECHO = {"kind": "stdio", "tests": [{"stdin": "3\n", "stdout": "9\n"}, {"stdin": "2\n", "stdout": "4\n"}]}


@pytest.fixture
def sandbox() -> None:
    sandbox_or_skip()


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize(
    ("program", "reference", "detail"),
    [
        ("def f(x): return x * x", SQUARES, None),
        ("I square it:\n```python\ndef f(x):\n    return x * x\n```\nDone.", SQUARES, None),
        ("f = lambda x: float(x * x)", SQUARES, None),
        ("def f(x: int): return f.__annotations__['x'](x * x)", SQUARES, None),
        ("def g(y: int): return y\nprint(g.__annotations__['y'](input()) ** 2)", ECHO, None),
        ("def f(x): return x", SQUARES, "test 1 of 3: result 3"),
        ("def f(x): return x * x if x > 1 else 'one'", SQUARES, 'test 2 of 3: result "one"'),
        (
            "def f(x, y): return x * x",
            SQUARES,
            "test 1 of 3: raised TypeError: f() missing 1 required positional argument",
        ),
        ("I would square it.", SQUARES, "the program does not load: SyntaxError"),
        ("print(int(input()) ** 2)", ECHO, None),
        ("print(int(input()) * 3)", ECHO, "test 2 of 2: printed '6\\n'"),
        ("print(int(input()) ** 2, end='   ')\nprint()\nprint()", ECHO, None),
        ("print('', int(input()) ** 2)", ECHO, "test 1 of 2: printed ' 9\\n'"),
    ],
)
def test_a_program_is_judged_by_what_its_tests_give(
    program: str, reference: dict[str, Any], detail: str | None
) -> None:
    judgment = CodeTests().score(program, reference)
    assert judgment.correct is (detail is None)
    assert (detail or "") in judgment.detail


@pytest.mark.usefixtures("sandbox")
def test_arguments_come_by_position_and_by_name_and_methods_are_found() -> None:
    program = "class Solution:\n    def scale(self, xs, *, by=1):\n        return {'scaled': tuple(x * by for x in xs)}"
    tests = [{"args": [[1, 2]], "kwargs": {"by": 2}, "expected": {"scaled": [2, 4]}}]
    reference = {"kind": "function", "entry_point": "Solution.scale", "tests": tests}
    assert CodeTests().score(program, reference).correct


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize(
    ("program", "reward", "detail"),
    [
        ("def f(x): return x * x", None, ""),
        ("def f(x): return x * x if x > 1 else 0", 2 / 3, "2 of 3 tests passed; test 2 of 3: result 0"),
        ("def f(x): return 1", 1 / 3, "1 of 3 tests passed; test 1 of 3: result 1"),
        ("def f(x): return 0", 0.0, "0 of 3 tests passed; test 1 of 3: result 0"),
        ("def f(x):\n    while x == 3: pass\n    return x * x", 2 / 3, "2 of 3 tests passed; test 1 of 3: "),
        ("def f(x): os", 0.0, "0 of 3 tests passed; test 1 of 3: raised NameError"),
        ("import os\nos._exit(0)", 0.0, "0 of 3 tests passed; test 1 of 3: the program ended the runner"),
    ],
)
def test_the_share_of_tests_is_the_reward_where_it_is_asked_for(
    program: str, reward: float | None, detail: str
) -> None:
    judgment = CodeTests(pass_all=False, wall_s=1.0).score(program, SQUARES)
    assert judgment.correct is (reward is None)
    assert judgment.reward == reward
    assert judgment.detail.startswith(detail)


@pytest.mark.usefixtures("sandbox")
def test_all_tests_together_have_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_SANDBOX", '{"type": "bubblewrap", "max_total_s": 1.5}')
    reference = {"kind": "function", "entry_point": "f", "tests": [{"args": [], "expected": None}] * 20}
    start_s = time.monotonic()
    judgment = CodeTests(pass_all=False, wall_s=1.0).score("import time\ndef f(): time.sleep(0.4)", reference)
    assert time.monotonic() - start_s < 8
    assert "wall time of all tests over" in judgment.detail
    assert 0 < (judgment.reward or 0) < 0.5


def test_more_than_the_configuration_allows_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_SANDBOX", '{"type": "bubblewrap", "max_wall_s": 2.0}')
    with pytest.raises(ScoringFault, match=r"wall_s = 4 is above max_wall_s = 2"):
        CodeTests().score("def f(x): return x * x", SQUARES)


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize(
    ("test", "names"),
    [
        ({"stdin": "x" * 2**20 * 2, "stdout": ""}, r"stdin of test 1 .* max_file_mb = 1 "),
        ({"stdin": "", "stdout": "x" * 2000}, r"stdout of test 1 .* max_output_bytes = 1024 "),
        ({"args": [], "expected": ["x"] * 1000}, r"expected of test 1 .* max_output_bytes = 1024 "),
    ],
)
def test_a_test_that_no_program_could_pass_under_the_limits_is_a_fault(
    test: dict[str, Any], names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_SANDBOX", '{"type": "bubblewrap", "max_file_mb": 1, "max_output_bytes": 1024}')
    reference = {"kind": "stdio"} if "stdin" in test else {"kind": "function", "entry_point": "f"}
    with pytest.raises(ScoringFault, match=names):
        CodeTests().score("def f(): return 1", {**reference, "tests": [test]})


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"wall_s": 0.0}, "wall_s = 0.0"),
        ({"wall_s": float("nan")}, "wall_s = nan"),
        ({"memory_mb": 8}, "memory_mb = 8 is below 64"),
        ({"float_tolerance": -1.0}, "float_tolerance = -1.0"),
        ({"pass_all": "yes"}, r"at `\$.pass_all`"),
        ({"cpu": 1}, "unknown options cpu"),
    ],
)
def test_wrong_options_are_faults_that_name_them(options: dict[str, Any], names: str) -> None:
    with pytest.raises(ScoringFault, match=names):
        build_grader(CodeTests, options)


@pytest.mark.parametrize(
    ("reference", "names"),
    [
        ("print(1)", "reference: Expected `object`, got `str`"),
        ({}, "missing required field `kind`"),
        ({"kind": "main", "tests": []}, r"Invalid value 'main' - at `\$.kind`"),
        ({"kind": "function", "tests": [{"args": [], "expected": 1}]}, "missing required field `entry_point`"),
        ({"kind": "function", "entry_point": "f", "tests": []}, r"no tests - at `\$.tests`"),
        ({"kind": "function", "entry_point": "f()", "tests": [{"args": [], "expected": 1}]}, r"at `\$.entry_point`"),
        ({"kind": "function", "entry_point": "f", "tests": [{"args": 1, "expected": 1}]}, r"at `\$\.tests\[0\]\.args`"),
        ({"kind": "function", "entry_point": "f", "tests": [{"args": []}]}, "missing required field `expected`"),
        ({"kind": "function", "entry_point": "f", "tests": [{"args": [], "expectd": 1}]}, "`expect"),
        ({"kind": "function", "entry_point": "f", "tests": [{"args": [b"x"], "expected": 1}]}, "not JSON serializable"),
        ({"kind": "stdio", "tests": [{"stdin": 1, "stdout": ""}]}, r"at `\$\.tests\[0\]\.stdin`"),
        ({"kind": "stdio", "tests": [{"stdin": "\ud800", "stdout": ""}]}, "cannot be written as UTF-8"),
    ],
)
def test_a_reference_by_which_nothing_can_be_judged_is_a_fault(reference: Any, names: str) -> None:
    with pytest.raises(ScoringFault, match=names):
        CodeTests().check(reference)
    with pytest.raises(ScoringFault, match=names):
        CodeTests().score("def f(): return 1", reference)


@pytest.mark.parametrize("reference", [SQUARES, ECHO])
def test_a_sound_reference_passes_the_check(reference: Any) -> None:
    CodeTests().check(reference)


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("x = 1", "x = 1"),
        ("", ""),
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```\nor\n~~~py\nx = 2\ny = 3\n~~~\nbye", "x = 2\ny = 3\n"),
        ("````\nx = '```'\n```\ny = 1\n````", "x = '```'\n```\ny = 1\n"),
        ("1. Do\n   ```python\n   if x:\n       y = 1\n   ```", "if x:\n    y = 1\n"),
        ("```python\nx = 1\n```\nand\n```python\nx = 2", "x = 2\n"),
        ("```x = 1``` is all", "```x = 1``` is all"),
        ("``` \nx = 1\r\n``` \n", "x = 1\r\n"),
        ("```\n```", ""),
    ],
)
def test_the_last_fenced_block_is_the_program(response: str, program: str) -> None:
    assert program_in(response) == program


@pytest.mark.parametrize("flood", ["`", "```\n", " ", "~~~ x\n", "\n", "``` `", " `", "```" + " "])
def test_a_flood_is_read_at_once(flood: str) -> None:
    start_s = time.process_time()
    program_in(flood * (2**20 // len(flood)))
    assert time.process_time() - start_s < 20.0  # minutes, if every sign were looked for from the beginning


@pytest.mark.parametrize(
    ("result", "expected", "tolerance", "equal"),
    [
        (1, 1.0, 0.0, True),
        (True, 1, 0.0, False),
        (1, True, 0.0, False),
        (True, True, 0.0, True),
        (False, None, 0.0, False),
        (0, False, 0.0, False),
        ("1", 1, 0.0, False),
        ([1, [2.0]], [1, [2]], 0.0, True),
        ([1, 2], (1, 2), 0.0, True),
        ([1, 2], [2, 1], 0.0, False),
        ([1], [1, 2], 0.0, False),
        ({"a": 1}, {"a": 1, "b": 2}, 0.0, False),
        ({"b": 2, "a": 1}, {"a": 1, "b": 2}, 0.0, True),
        (0.1 + 0.2, 0.3, 0.0, False),
        ([0.1 + 0.2], [0.3], 1e-9, True),
        (100, 101, 0.5, False),
        (100.0, 101, 0.5, True),
        (2**53 + 1, float(2**53), 0.0, False),
        (10**400, 1.0, 0.1, False),
        (float("inf"), float("inf"), 0.0, True),
        (float("nan"), float("nan"), 0.0, True),
        (float("nan"), 1.0, 1.0, False),
        (None, None, 0.0, True),
        (0.1 + 0.2, 0.3, None, True),
        (0.3333333333, 0.333333, None, True),
        (2.67, 2.68, None, False),
        (1, 2, None, False),
        (1.0000001, 1, None, True),
        (500000000.5, 500000001.5, None, False),
        (0.0, 2.5e-8, None, False),
        (1e-17, 0.0, None, True),
        (10**400, 1.0, None, False),
        (float("inf"), 1.0, None, False),
        (float("nan"), float("nan"), None, True),
    ],
)
def test_results_are_compared_as_values_of_json(
    result: Any, expected: Any, tolerance: float | None, equal: bool
) -> None:
    assert same(result, expected, tolerance) is equal


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES, VALUES)
def test_equality_is_symmetric_and_every_value_equals_itself(one: Any, other: Any) -> None:
    assert same(one, one, 0.0)
    assert same(one, other, 0.0) == same(other, one, 0.0)


@pytest.mark.parametrize(
    ("printed", "expected", "tolerance", "equal"),
    [
        ("1\n2\n", "1\n2", 0.0, True),
        ("1  \n2\t\r\n\n", "1\n2\n", 0.0, True),
        ("1 2\n", "1\n2\n", 0.0, False),
        ("\n1\n", "1\n", 0.0, False),
        ("1\n\n2", "1\n2", 0.0, False),
        ("", "", 0.0, True),
        ("0.30000001", "0.3", 0.0, False),
        ("0.30000001 yes", "0.3\nyes", 1e-6, True),
        ("0.31 yes", "0.3 yes", 1e-6, False),
        ("0.3 yes", "0.3 no", 1e-6, False),
        ("0.3", "0.3 0.3", 1e-6, False),
        ("nan", "NaN", 1e-6, True),
        ("1000000", "1000001", 1e-6, False),
        ("123456789012345678", "123456789012345679", 1e-6, False),
        ("2.0", "2", 1e-6, True),
        ("1_0", "10", 1e-6, False),
        ("1" * 10**6, "1", 1e-6, False),
        ("0.3333333333 yes", "0.333333 yes", None, True),
        ("\ufeff1\n", "1\n", None, True),
        ("1\n", "\ufeff1\n", 0.0, True),
        ("0.30000001 yes", "0.3\nyes", None, False),
        ("0.3  yes", "0.3 yes", None, False),
        ("2.0", "2", None, False),
        ("2", "2.0", None, False),
        ("2.67", "2.68", None, False),
        ("1000000", "1000001", None, False),
        ("1.5 2\n2.5", "1.50000000001 2\n2.5\n", None, True),
    ],
)
def test_output_is_compared_by_line_or_by_word_with_a_tolerance(
    printed: str, expected: str, tolerance: float | None, equal: bool
) -> None:
    assert same_output(printed, expected, tolerance) is equal
