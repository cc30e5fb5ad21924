"""Reads calls of tools out of a message, in the way in which the model's family writes them.

They are read here rather than by vLLM's parsers, because those need vLLM and torch in the process of the environment, and because
they make one answer of a call that cannot be read and of no call at all. What stands in a thought is not read.
"""

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it was written."""

    name: str
    arguments: dict[str, Any]
    texts: bool = False
    """Whether every argument is text, whatever its type: the family writes no types."""

    def typed(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with the types of this schema. Texts that cannot be read as such stay, for the schema to refuse."""
        if not self.texts:
            return self.arguments
        types = parameters.get("properties", {})
        return {name: _of_type(value, types.get(name, {})) for name, value in self.arguments.items()}


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something that begins like a call and is none."""

    why: str


@dataclass(frozen=True, slots=True)
class Read:
    """What a message holds."""

    text: str
    """The message without its calls."""
    calls: Sequence[Call | Unreadable] = field(default=())


def read_calls(said: str, form: str) -> Read:
    """The calls of a message. form: one of FORMATS."""
    thought, ends, said = said.rpartition("</think>")
    if not ends and "<think>" in said:
        return Read(said)
    read = FORMATS[form](said)
    return Read(thought + ends + read.text, read.calls)


TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
XML_FUNCTION = re.compile(r"\s*<function=([^>\s]+)>(.*?)(?:</function>)?\s*\Z", re.DOTALL)
XML_PARAMETER = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
PYTHON_TAG = "<|python_tag|>"
PYTHON_TAGS = re.compile(r"<\|python_(?:start|end)\|>")
DECODER = json.JSONDecoder()


def _hermes(said: str) -> Read:
    """<tool_call>{"name": ..., "arguments": {...}}</tool_call>, as Hermes, Qwen 2.5 and Qwen 3 write it."""
    return Read(TAGGED.sub("", said), [_json_call(body) for body in TAGGED.findall(said)])


def _qwen3_coder(said: str) -> Read:
    """<tool_call><function=NAME><parameter=NAME>value</parameter></function></tool_call>, as Qwen 3 Coder writes it."""
    calls: list[Call | Unreadable] = []
    for body in TAGGED.findall(said):
        found = XML_FUNCTION.match(body)
        if found is None:
            calls.append(Unreadable("between the tags stands no <function=NAME>"))
        else:
            calls.append(Call(found[1], dict(XML_PARAMETER.findall(found[2])), texts=True))
    return Read(TAGGED.sub("", said), calls)


def _llama3_json(said: str) -> Read:
    """{"name": ..., "parameters": {...}}, several with semicolons between them, as Llama 3 writes it."""
    tagged = PYTHON_TAG in said
    before, _, body = said.partition(PYTHON_TAG) if tagged else ("", "", said)
    calls: list[Call | Unreadable] = []
    rest = body.strip()
    if not rest.startswith("{"):
        return Read(before, [Unreadable(f"no JSON object follows {PYTHON_TAG}")]) if tagged else Read(said)
    while rest:
        try:
            value, end = DECODER.raw_decode(rest)
        except (ValueError, RecursionError) as fault:
            calls.append(Unreadable(f"it is not JSON: {fault}"))
            break
        calls.append(_call_of(value))
        rest = rest[end:].lstrip("; \n")
    if not tagged and not re.search(r'"name"\s*:', body):  # an answer in JSON
        return Read(said)
    return Read(before, calls)


def _pythonic(said: str) -> Read:
    """[name(argument=value), ...], as Llama 3.2 and 4 write it."""
    body = PYTHON_TAGS.sub("", said).strip()
    if not re.match(r"\[\s*[A-Za-z_][\w.-]*\s*\(", body):
        return Read(said)
    try:
        tree = ast.parse(body, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        return Read("", [Unreadable(f"it is not a list of calls: {fault}")])
    if not isinstance(tree, ast.List):
        return Read("", [Unreadable("something follows the list of calls")])
    return Read("", [_python_call(node) for node in tree.elts])


FORMATS: Mapping[str, Callable[[str], Read]] = {
    "hermes": _hermes,
    "llama3_json": _llama3_json,
    "pythonic": _pythonic,
    "qwen3_coder": _qwen3_coder,
}
EXAMPLES: Mapping[str, str] = {
    "hermes": '<tool_call>{"name": "NAME", "arguments": {"ARGUMENT": "VALUE"}}</tool_call>',
    "llama3_json": '{"name": "NAME", "parameters": {"ARGUMENT": "VALUE"}}',
    "pythonic": '[NAME(ARGUMENT="VALUE")]',
    "qwen3_coder": "<tool_call><function=NAME><parameter=ARGUMENT>VALUE</parameter></function></tool_call>",
}
"""What a call looks like, for the policy."""


def _json_call(text: str) -> Call | Unreadable:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as fault:
        return Unreadable(f"it is not JSON: {fault}")
    return _call_of(value)


def _call_of(value: object) -> Call | Unreadable:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return Unreadable("it is not an object with a name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return Unreadable("its arguments are a text, not an object")
    if not isinstance(arguments, dict):
        return Unreadable("its arguments are not an object")
    return Call(value["name"], arguments)


def _python_call(node: ast.expr) -> Call | Unreadable:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
        return Unreadable("the list holds something that is not a call")
    if node.args or any(word.arg is None for word in node.keywords):
        return Unreadable("every argument needs its name")
    try:
        arguments = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
        json.dumps(arguments)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return Unreadable("its arguments are not plain values")
    return Call(ast.unparse(node.func), arguments)


def _of_type(value: str, schema: Any) -> Any:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if kind in (None, "string"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return {"True": True, "False": False, "None": None}.get(value.strip(), value)
