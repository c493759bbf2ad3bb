"""What holds for every schema: it is one, it leaves nothing open, and it explains every field."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bedside.provenance import NOTICE
from schemas import list_objects, list_schemas, read_schema

NAMES = list_schemas()
OBJECTS = [(name, place) for name in NAMES for place, _ in list_objects(read_schema(name))]
OPTIONAL = {
    ("opacification-1", "$.properties.files"),
    ("severity-1", "$.properties.files"),
    ("severity-1", "$.properties.timing_ms"),
}
"""Objects some of whose fields may be missing."""


@pytest.mark.parametrize("name", NAMES)
def test_schema_is_a_schema_and_says_its_name_and_the_notice(name: str) -> None:
    document = read_schema(name)
    Draft202012Validator.check_schema(document)
    assert document["properties"]["schema"]["const"] == "bedside.{}/{}".format(*name.rsplit("-", 1))
    assert document["properties"]["notice"]["const"] == NOTICE


def test_objects_are_found_in_every_schema() -> None:
    assert {name for name, _ in OBJECTS} == set(NAMES)
    assert len(OBJECTS) > 5 * len(NAMES)


@pytest.mark.parametrize(("name", "place"), OBJECTS)
def test_every_object_is_closed_and_every_field_explained(name: str, place: str) -> None:
    document = read_schema(name)
    schema = dict(list_objects(document))[place]
    assert schema["additionalProperties"] is False
    assert (set(schema.get("required", ())) == schema["properties"].keys()) == ((name, place) not in OPTIONAL)
    for field, value in schema["properties"].items():
        assert explanation(document, value), f"{place}.{field}"


def explanation(document: dict[str, Any], field: dict[str, Any]) -> str | None:
    found: str | None = field.get("description")
    return found or document["$defs"][field["$ref"].split("/")[-1]].get("description")
