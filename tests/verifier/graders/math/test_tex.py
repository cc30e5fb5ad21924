"""What TeX takes for an argument and for a group."""

import pytest

from verifier.graders.math.tex import with_arguments, with_over


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        (r"\frac12", r"\frac{1}{2}"),
        (r"\frac1{20}", r"\frac{1}{20}"),
        (r"\frac{10}3", r"\frac{10}{3}"),
        (r"\frac ab", r"\frac{a}{b}"),
        (r"\frac\pi2", r"\frac{\pi}{2}"),
        (r"\frac{1}\pi", r"\frac{1}{\pi}"),
        (r"\frac\sqrt32", r"\frac{\sqrt{3}}{2}"),
        (r"x^\frac12", r"x^{\frac{1}{2}}"),
        (r"\sqrt\frac12", r"\sqrt{\frac{1}{2}}"),
        (r"\sqrt[3]2", r"\sqrt[3]{2}"),
        (r"\sqrt(x(x+1))y", r"\sqrt{x(x+1)}y"),
        (r"2^(3(x+1))", r"2^{3(x+1)}"),
        (r"\binom n2", r"\binom{n}{2}"),
        (r"\log _2 8", r"\log_{2} 8"),
        (r"\log_10 8", r"\log_{10} 8"),
        (r"\abs (x-1)", "|x-1|"),
        (r"0.\overline 3", r"0.\overline{3}"),
        (r"90 ^ \circ", r"90^\circ"),
    ],
)
def test_an_argument_without_braces_is_the_next_token(latex: str, expected: str) -> None:
    assert with_arguments(latex) == expected


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("x > { 3 }", "x > 3"),
        ("x = {a + b}", "x = a + b"),
        ("2 {a + b}", "2 (a + b)"),
        ("{2}{3}", "2 3"),
        (r"{e}^{2}", r"e^{2}"),
        (r"\sin{x}y", r"\sin{x}y"),
        (r"\sin^{2}{x}", r"\sin^{2}{x}"),
        (r"\{ {1}, {2} \}", r"\{ 1, 2 \}"),
        (r"\text{a {b} c}", r"\text{a {b} c}"),
        (r"\begin{array}{cc} {1} & 2 \end{array}", r"\begin{array}{cc} 1 & 2 \end{array}"),
    ],
)
def test_braces_that_only_group_go_or_become_brackets(latex: str, expected: str) -> None:
    assert with_arguments(latex) == expected


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        (r"{1\over2}", r"{\frac{1}{2}}"),
        (r"a+b \over 2", r"\frac{a+b }{ 2}"),
        (r"\sqrt{a \over {b \over c}}", r"\sqrt{\frac{a }{ {\frac{b }{ c}}}}"),
        (r"\left(n \choose k\right)", r"\left(\binom{n }{ k}\right)"),
        (r"{5 \choose \frac{4}{2}}", r"{\binom{5 }{ \frac{4}{2}}}"),
        (r"\begin{pmatrix}1\over2&3\\4&5\end{pmatrix}", r"\begin{pmatrix}\frac{1}{2}&3\\4&5\end{pmatrix}"),
        (r"\overline{AB}", r"\overline{AB}"),
    ],
)
def test_over_takes_all_of_its_group_or_cell(latex: str, expected: str) -> None:
    assert with_over(latex) == expected


@pytest.mark.parametrize("latex", [r"\frac{1}", r"\frac", "x^", "}", "{", "(1, 2]", "]1, 2[", r"\frac{(}{)}"])
def test_what_is_not_complete_stays_incomplete(latex: str) -> None:
    assert with_arguments(latex) == latex


def test_text_that_is_nested_deeper_than_any_answer_stays_as_it_is() -> None:
    assert with_arguments("{" * 900 + "1" + "}" * 900).count("{") == 900


def test_two_in_one_group_are_an_error_in_tex_and_stay() -> None:
    assert with_over(r"{1 \over 2 \over 3}") == r"{1 \over 2 \over 3}"
