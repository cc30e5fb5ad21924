"""Tool `calculator`: an expression of numbers, + - * / // % **, parentheses and a few functions, of bounded size."""

import ast
import math
import operator
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rollout.environments.tools.function import Function, ToolError
from services.config.tools import CalculatorTool

LONGEST = 500
"""Characters of an expression."""
MOST_BITS = 4096
"""Size of the largest whole number on the way."""
OPERATIONS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "round": round,
    "min": min,
    "max": max,
    **{
        name: getattr(math, name)
        for name in (
            "sqrt",
            "exp",
            "log",
            "log2",
            "log10",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "floor",
            "ceil",
            "gcd",
        )
    },
}
NAMES = {"pi": math.pi, "e": math.e}
PARAMETERS = {
    "type": "object",
    "properties": {"expression": {"type": "string", "description": "such as (3 + 4) * 2 ** 5"}},
    "required": ["expression"],
    "additionalProperties": False,
}
DESCRIPTION = (
    f"Computes an expression of numbers with + - * / // % ** and parentheses, and with {', '.join(FUNCTIONS)}."
)


class Calculator:
    def __init__(self, settings: CalculatorTool) -> None:
        self._function = Function(settings.name, DESCRIPTION, PARAMETERS, _call, settings.seconds)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Sequence[Function]]:
        yield [self._function]


async def _call(arguments: dict[str, Any]) -> str:
    value = compute(arguments["expression"])
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def compute(expression: str) -> int | float:
    """The value. Raises ToolError, with words for the policy."""
    if len(expression) > LONGEST:
        raise ToolError(f"an expression has at most {LONGEST} characters")
    try:
        return _value(ast.parse(expression.strip().replace("^", "**"), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError):
        raise ToolError(f"{expression!r} is not an expression") from None
    except OverflowError:
        raise ToolError("the result is too large") from None
    except (ArithmeticError, ValueError, TypeError) as fault:
        raise ToolError(f"{fault}") from None


def _value(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            value: Any = number
        case ast.Name(id=name) if name in NAMES:
            value = NAMES[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            value = _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            value = _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            value = OPERATIONS[type(op)](_value(left), _value(right))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            value = FUNCTIONS[name](*map(_value, arguments))
        case _:
            raise ToolError("only numbers, + - * / // % **, parentheses and the functions named are computed")
    if isinstance(value, complex):
        raise ToolError("the result is not a real number")
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise ToolError("the result is too large")
    number = value if isinstance(value, int) else float(value)
    return number


def _power(base: int | float, exponent: int | float) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and abs(exponent) * base.bit_length() > MOST_BITS:
        raise ToolError("the result is too large")
    return base**exponent
