"""Grader `json`: the response is JSON that satisfies a schema, or that equals a value.

The reference says which: {"schema": ...} with a JSON Schema, or {"value": ...} with any JSON value. It may also be the JSON
text of such an object, for datasets whose columns cannot hold one (Parquet gives every row the union of all names).

The response is read strictly: a name twice in one object, NaN, numbers beyond a double's range, nesting beyond `max_depth`
and text around the JSON make it incorrect. In a comparison 1 equals 1.0, true does not equal 1, and the order of names is
free.

Failure modes:
- `format` in a schema is only a remark, as the specification says: no date or address is checked. Use `pattern`.
- A `$ref` is looked up in the schema and among the published drafts, never on the network or on disk. One that leads
  elsewhere is a fault of the reference, and so is a schema that refers to itself without end.
- A `pattern` that backtracks without end on some response holds the grader process until its deadline; so can
  `uniqueItems` on hundreds of thousands of elements. `max_characters` bounds both, and the pool ends them.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, ClassVar, Literal

import msgspec
from jsonschema import exceptions, validators  # type: ignore[import-untyped]
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
from referencing.exceptions import Unresolvable
from referencing.jsonschema import specification_with

from verifier.grader import Grader, Judgment, ScoringFault
from verifier.graders.strict_json import MAX_DEPTH, NotJson, last_fenced_json, read_json, same

Draft = Literal["4", "6", "7", "2019-09", "2020-12"]
VALIDATORS: dict[Draft, Any] = {
    "4": validators.Draft4Validator,
    "6": validators.Draft6Validator,
    "7": validators.Draft7Validator,
    "2019-09": validators.Draft201909Validator,
    "2020-12": validators.Draft202012Validator,
}
DIALECTS: dict[str, Any] = {one.ID_OF(one.META_SCHEMA).rstrip("#"): one for one in VALIDATORS.values()}
"""Validators by the URI that a schema gives as its $schema, without an empty fragment."""
SHOWN_CHARACTERS = 60  # of a wrong answer, in the detail
PROBES: tuple[Any, ...] = (None, False, 0, "", [], {})
"""One value of each type: an error that a schema raises on these is its own fault."""


class JsonSchema(Grader, frozen=True):
    version: ClassVar[str] = "3"

    fenced: bool = False
    """Whether the answer is the response's last complete ```json block, or unmarked ``` block. Text around it is ignored."""
    draft: Draft = "2020-12"
    """Draft of a schema that has no $schema."""
    max_depth: int = MAX_DEPTH
    """Arrays and objects within each other that a response may have."""
    max_characters: int = 200_000
    """A longer response is incorrect without being read."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_depth <= MAX_DEPTH:
            raise ScoringFault(f"option max_depth = {self.max_depth} must be 1 to {MAX_DEPTH}")
        if self.max_characters < 1:
            raise ScoringFault(f"option max_characters = {self.max_characters} must be at least 1")

    def check(self, reference: Any) -> None:
        expected = _expected(reference)
        if "schema" in expected:
            validator = self._validator(expected["schema"])
            for probe in PROBES:
                _first_error(validator, probe)

    def score(self, response: str, reference: Any) -> Judgment:
        expected = _expected(reference)
        validator = self._validator(expected["schema"]) if "schema" in expected else None
        if len(response) > self.max_characters:
            return Judgment(False, f"{len(response)} characters, more than {self.max_characters}")
        text = last_fenced_json(response) if self.fenced else response
        if text is None:
            return Judgment(False, "no complete ``` block of JSON")
        try:
            answer = read_json(text, max_depth=self.max_depth)
        except NotJson as fault:
            return Judgment(False, str(fault))
        if validator is None:
            return Judgment(True) if same(answer, expected["value"]) else Judgment(False, "another value")
        error = _first_error(validator, answer)
        if error is None:
            return Judgment(True)
        return Judgment(False, f"{error.json_path[:SHOWN_CHARACTERS]!a} breaks {error.validator}")

    def _validator(self, schema: Any) -> Any:
        # The samples of a group share their schema, and checking it takes longer than applying it.
        return _checked_validator(msgspec.json.encode(schema), self.draft)


def _expected(reference: Any) -> dict[str, Any]:
    """The reference as an object with either schema or value. Raises ScoringFault when it is not one."""
    if isinstance(reference, str):
        try:
            reference = read_json(reference)
        except NotJson as fault:
            raise ScoringFault(f'reference is a string, but not the JSON text of {{"schema": ...}}: {fault}') from fault
    if not isinstance(reference, dict) or reference.keys() not in ({"schema"}, {"value"}):
        raise ScoringFault('reference must be {"schema": ...} or {"value": ...}, and nothing else')
    return reference


@lru_cache(maxsize=256)
def _checked_validator(schema_text: bytes, draft: Draft) -> Any:
    """A validator for the schema. Raises ScoringFault when it is not a schema, has an unknown draft, or refers to what is
    not there."""
    schema = msgspec.json.decode(schema_text)
    if not isinstance(schema, dict | bool):
        raise ScoringFault(f"reference.schema must be an object or a truth value, not {type(schema).__name__}")
    validator_class = VALIDATORS[draft]
    if isinstance(schema, dict) and "$schema" in schema:
        validator_class = DIALECTS.get(str(schema["$schema"]).rstrip("#"))
        if validator_class is None:
            raise ScoringFault(
                f"reference.schema.$schema = {schema['$schema']!r:.80} is not one of {', '.join(DIALECTS)}"
            )
    try:
        validator_class.check_schema(schema, format_checker=validator_class.FORMAT_CHECKER)
        for reference, resolver in _references(schema, validator_class):
            resolver.lookup(reference)
    except exceptions.SchemaError as fault:
        raise ScoringFault(f"reference.schema is not a JSON Schema: {fault.json_path}: {fault.message:.200}") from fault
    except Unresolvable as fault:
        raise ScoringFault(f"reference.schema refers to what is not in it: {fault}") from fault
    except RecursionError as fault:
        raise ScoringFault("reference.schema is nested too deeply") from fault
    return validator_class(schema, registry=REGISTRY)


def _references(schema: Any, validator_class: Any) -> Iterator[tuple[str, Any]]:
    """Every $ref, with the resolver for its place."""
    root = specification_with(validator_class.ID_OF(validator_class.META_SCHEMA)).create_resource(schema)
    waiting = [(root, REGISTRY.resolver_with_root(root))]
    while waiting:
        resource, resolver = waiting.pop()
        if isinstance(resource.contents, dict) and isinstance(resource.contents.get("$ref"), str):
            yield resource.contents["$ref"], resolver
        waiting += [(inner, resolver.in_subresource(inner)) for inner in resource.subresources()]


def _first_error(validator: Any, value: Any) -> Any:
    """The first error of the value, or None. Raises ScoringFault when the schema fails: the value's depth is bounded well
    below the interpreter's limit, so it cannot be the cause."""
    try:
        return next(validator.iter_errors(value), None)
    except Unresolvable as fault:
        raise ScoringFault(f"reference.schema refers to what is not in it: {fault}") from fault
    except RecursionError as fault:
        raise ScoringFault("reference.schema refers to itself without end") from fault
    except OverflowError as fault:
        raise ScoringFault("reference.schema has a number beyond a double's range") from fault
