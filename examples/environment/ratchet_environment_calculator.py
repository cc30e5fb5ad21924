"""Environment `calculator`: the policy may have expressions computed before it answers.

A message with a tool call is answered with the result, or in words with why there is none; a message without one is the answer,
which the run's grader judges. Nothing is evaluated but numbers, + - * / and parentheses, of bounded size.
"""

import ast
import json
import operator
import re
from collections.abc import Mapping
from typing import Any

from rollout.environments import Message, Start, Subject, Turn

CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
LONGEST = 200  # characters of an expression
LARGEST = 10**18
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
TOOL = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Computes an expression of numbers, + - * / and parentheses.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    },
}


class Calculator:
    def __init__(self, *, calls: int = 4) -> None:
        """calls: how many are answered in one conversation."""
        self._calls_left = calls

    async def reset(self, subject: Subject) -> Start:
        return Start(subject.messages, [TOOL])

    async def step(self, message: Message) -> Turn:
        found = CALL.search(message["content"])
        if found is None:
            return Turn(done=True)
        self._calls_left -= 1
        if self._calls_left < 0:
            return _answer("No calls are left; answer now.", failed=True)
        try:
            return _answer(f"{compute(_expression(found[1])):g}")
        except (ValueError, ArithmeticError) as fault:
            return _answer(f"Error: {fault}", failed=True)

    async def close(self) -> None:
        """Nothing is held."""


def _answer(text: str, *, failed: bool = False) -> Turn:
    info: Mapping[str, Any] = {"tool_errors": ["calculator"]} if failed else {}
    return Turn([{"role": "tool", "content": text}], info=info)


def _expression(call: str) -> str:
    """What the call asks for. Raises ValueError, with words for the policy."""
    try:
        expression = json.loads(call)["arguments"]["expression"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError('a call is {"name": "calculator", "arguments": {"expression": "..."}}') from None
    if not isinstance(expression, str) or len(expression) > LONGEST:
        raise ValueError(f"an expression is a text of at most {LONGEST} characters")
    return expression


def compute(expression: str) -> float:
    """The value. Raises ValueError for what is not an expression of numbers, ArithmeticError for what has no value."""
    try:
        tree = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{expression!r} is not an expression") from None
    return _value(tree)


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            value: float = number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            value = OPERATIONS[type(op)](_value(left), _value(right))
        case _:
            raise ValueError("only numbers, + - * / and parentheses are computed")
    if abs(value) > LARGEST:
        raise ValueError("the result is too large")
    return value
