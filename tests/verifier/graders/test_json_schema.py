import json
import re
import socket
import threading
import time
from typing import Any

import pytest

from verifier.grader import ScoringFault, build_grader
from verifier.graders.json_schema import JsonSchema

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {"tree": {"type": "object", "properties": {"of": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}},
    "$ref": "#/$defs/tree",
}


@pytest.mark.parametrize(
    ("schema", "response", "detail"),
    [
        (PERSON, '{"name": "Ada", "age": 36}', ""),
        (PERSON, ' \n{"name": "Ada"}\n', ""),
        (PERSON, '{"age": 36}', "'$' breaks required"),
        (PERSON, '{"name": "Ada", "age": -1}', "'$.age' breaks minimum"),
        (PERSON, '{"name": "Ada", "age": true}', "'$.age' breaks type"),
        (PERSON, '{"name": "Ada", "age": 36.0}', ""),
        (PERSON, '{"name": "ada"}', "'$.name' breaks pattern"),
        (PERSON, '{"name": "Ada", "extra": 1}', "'$' breaks additionalProperties"),
        (PERSON, '{"name": "ada", "name": "Ada"}', "an object has a name twice"),
        (PERSON, 'Here it is: {"name": "Ada"}', "not JSON: Expecting value at character 0"),
        (PERSON, "", "not JSON: Expecting value at character 0"),
        (TREE, '{"of": [{"of": []}, {}]}', ""),
        (TREE, '{"of": [{"of": [1]}]}', "'$.of[0].of[0]' breaks type"),
        (True, "1", ""),
        (False, "1", "'$' breaks None"),
        ({"multipleOf": 0.0078125}, "1" + "0" * 307, ""),
        ({"type": "number", "exclusiveMaximum": 5e307}, "9" * 308, "'$' breaks exclusiveMaximum"),
        ({"format": "date"}, '"no date"', ""),
    ],
)
def test_the_response_is_json_that_satisfies_the_schema(schema: Any, response: str, detail: str) -> None:
    judgment = JsonSchema().score(response, {"schema": schema})
    assert (judgment.correct, judgment.detail) == (not detail, detail)


@pytest.mark.parametrize(
    ("value", "response", "correct"),
    [
        ({"a": [1, None], "b": "x"}, '{"b": "x", "a": [1.0, null]}', True),
        ({"a": [1, None]}, '{"a": [null, 1]}', False),
        (1, "true", False),
        (None, "null", True),
        (None, "", False),
        ("text", '"text"', True),
        ("text", "text", False),
    ],
)
def test_the_response_is_the_value(value: Any, response: str, correct: bool) -> None:
    assert JsonSchema().score(response, {"value": value}).correct is correct


def test_a_reference_may_be_its_own_json_text() -> None:
    assert JsonSchema().score("3", '{"schema": {"type": "integer"}}').correct
    assert JsonSchema().score('"3"', '{"value": "3"}').correct


@pytest.mark.parametrize(
    ("response", "correct"),
    [
        ("Sure:\n```json\n1\n```\nDone.", True),
        ("```json\n2\n```\nNo:\n```\n1\n```", True),
        ("```json\n1\n```\nNo:\n```json\n2\n```", False),
        ("1", False),
        ("```json\n1", False),
    ],
)
def test_with_fenced_the_last_block_is_the_answer(response: str, correct: bool) -> None:
    assert build_grader(JsonSchema, {"fenced": True}).score(response, {"value": 1}).correct is correct


@pytest.mark.parametrize(
    ("options", "schema", "response", "correct"),
    [
        # Before draft 2019-09 what stands beside $ref is ignored.
        (
            {"draft": "7"},
            {"definitions": {"i": {"type": "integer"}}, "$ref": "#/definitions/i", "minimum": 5},
            "1",
            True,
        ),
        ({}, {"$defs": {"i": {"type": "integer"}}, "$ref": "#/$defs/i", "minimum": 5}, "1", False),
        # A schema's own word counts more than the option.
        ({"draft": "4"}, {"$schema": "https://json-schema.org/draft/2020-12/schema", "const": 1}, "2", False),
        ({"draft": "4"}, {"const": 1}, "2", True),
        ({"draft": "4"}, {"minimum": 1, "exclusiveMinimum": True}, "1", False),
    ],
)
def test_the_draft_decides_what_a_schema_means(
    options: dict[str, Any], schema: Any, response: str, correct: bool
) -> None:
    assert build_grader(JsonSchema, options).score(response, {"schema": schema}).correct is correct


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        (None, 'reference must be {"schema": ...} or {"value": ...}'),
        ({"type": "integer"}, 'reference must be {"schema": ...} or {"value": ...}'),
        ({"schema": {}, "value": 1}, "and nothing else"),
        ("{'schema': {}}", "reference is a string, but not the JSON text"),
        ('{"value": 1, "value": 2}', "an object has a name twice"),
        ({"schema": 3}, "reference.schema must be an object or a truth value, not int"),
        ({"schema": {"type": "integr"}}, "reference.schema is not a JSON Schema: $.type"),
        ({"schema": {"pattern": "("}}, "reference.schema is not a JSON Schema: $.pattern"),
        (
            {"schema": {"$schema": "http://example.org/mine"}},
            "reference.schema.$schema = 'http://example.org/mine' is not one",
        ),
        ({"schema": {"$schema": 7}}, "reference.schema.$schema = 7 is not one"),
        ({"schema": {"$ref": "#/$defs/nothing"}}, "refers to what is not in it"),
        ({"schema": {"properties": {"a": {"$ref": "https://example.org/schema.json"}}}}, "refers to what is not in it"),
        ({"schema": {"anyOf": [{"$ref": "file:///etc/hostname"}, True]}}, "refers to what is not in it"),
        ({"schema": {"$ref": "#"}}, "refers to itself without end"),
    ],
)
def test_a_reference_that_nothing_can_be_judged_by_is_a_fault(reference: Any, says: str) -> None:
    for judge in (JsonSchema().check, lambda unusable: JsonSchema().score("1", unusable)):
        with pytest.raises(ScoringFault, match=re.escape(says)):
            judge(reference)


def test_a_schema_that_only_goes_round_in_circles_further_in_is_a_fault_too() -> None:
    schema = {"properties": {"a": {"$ref": "#/properties/a"}}}
    with pytest.raises(ScoringFault, match="refers to itself without end"):
        JsonSchema().score('{"a": 1}', {"schema": schema})
    assert JsonSchema().score('{"b": 1}', {"schema": schema}).correct


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "URL"},
        {"properties": {"a": {"$ref": "URL"}}},
        {"$id": "URL", "$ref": "other.json"},
        # Where no schema is expected, none is looked for before one refers to it.
        {"$ref": "#/elsewhere", "elsewhere": {"$ref": "URL"}},
        {"$dynamicRef": "URL"},
        {"$schema": "URL"},
    ],
)
def test_nothing_is_ever_fetched(schema: dict[str, Any]) -> None:
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            asked.set()
            connection.close()

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        reference = {"schema": json.loads(json.dumps(schema).replace("URL", url))}
        with pytest.raises(ScoringFault, match=r"refers to what is not in it|is not one of"):
            JsonSchema().score('{"a": 1}', reference)
        server.shutdown(socket.SHUT_RDWR)
        listener.join(timeout=5)
    assert not asked.is_set()


def test_schemas_may_refer_to_the_published_drafts() -> None:
    reference = {"schema": {"$ref": "https://json-schema.org/draft/2020-12/schema"}}
    JsonSchema().check(reference)
    assert JsonSchema().score('{"type": "object"}', reference).correct
    assert not JsonSchema().score('{"type": "objekt"}', reference).correct


@pytest.mark.parametrize(
    ("response", "detail"),
    [
        ('{"of": [' * 32 + "]}" * 32, ""),
        ('{"of": [' * 33 + "]}" * 33, "nested deeper than 64"),
        ('{"of": [' * 200_000, "characters, more than 1000000"),
        ('{"of": [' * 100_000, "nested too deeply"),
        ('{"of": [' + "{}," * 50_000 + "{}]}", ""),
        ('{"of": [' + "1" * 900_000 + "]}", "beyond a double's range"),
        ('{"' + "\\ud800" * 20 + '": 1, "of": 1}', "breaks type"),
        ('{"of": [{"of": 1}], "' + "x" * 500_000 + '": 1}', "breaks type"),
    ],
)
def test_hostile_responses_are_incorrect_at_once(response: str, detail: str) -> None:
    start = time.thread_time()
    judgment = JsonSchema(max_characters=1_000_000).score(response, {"schema": TREE})
    assert judgment.correct is (not detail)
    assert detail in judgment.detail
    assert len(judgment.detail.encode()) < 120
    assert time.thread_time() - start < 6


def test_a_response_longer_than_any_answer_is_not_read() -> None:
    assert JsonSchema().score("1" * 200_001, {"value": 1}).detail == "200001 characters, more than 200000"


def test_a_name_as_long_as_the_response_is_not_repeated_in_the_detail() -> None:
    schema = {"additionalProperties": {"type": "integer"}}
    assert len(JsonSchema().score('{"' + "ü" * 100_000 + '": "x"}', {"schema": schema}).detail) < 500


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"draft": "5"}, "Invalid enum value '5'"),
        ({"max_depth": 65}, "option max_depth = 65 must be 1 to 64"),
        ({"max_characters": 0}, "option max_characters = 0 must be at least 1"),
        ({"exact": True}, "unknown options exact; this grader knows fenced, draft, max_depth, max_characters"),
    ],
)
def test_wrong_options_are_faults_that_name_them(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ScoringFault, match=says):
        build_grader(JsonSchema, options)
