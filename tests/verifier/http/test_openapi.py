"""The examples on the documentation page follow the contract."""

import json

import msgspec
import pytest

from verifier.contract import ScoreResponse, read_request, read_response
from verifier.http.openapi import EXAMPLES, openapi_parts


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_can_be_sent_and_read(name: str) -> None:
    question, answer = EXAMPLES[name]
    items = read_request(json.dumps(question).encode(), max_depth=8).items
    assert len(read_response(json.dumps(answer).encode(), [item.id for item in items])) == len(items)
    msgspec.convert(answer, ScoreResponse)


def test_every_refusal_is_described() -> None:
    operation, schemas = openapi_parts()
    assert set(operation["responses"]) == {"200", "401", "408", "413", "415", "422", "431", "503"}
    assert {"ScoreRequest", "ScoreItem", "ScoreResponse", "ScoreResult", "Refusal"} == set(schemas)
