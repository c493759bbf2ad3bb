"""The schemas that the package ships, to check results against."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator


def read_schema(name: str) -> dict[str, Any]:
    """A schema by its name, such as ``severity-1``."""
    text = files("bedside").joinpath(f"schemas/{name}.schema.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def make_validator(name: str) -> Draft202012Validator:
    """What tells whether a result keeps to the schema of this name."""
    return Draft202012Validator(read_schema(name))


def list_schemas() -> list[str]:
    """The names of all of them."""
    folder = files("bedside").joinpath("schemas")
    return sorted(each.name.removesuffix(".schema.json") for each in folder.iterdir())


def list_objects(schema: Any, place: str = "$") -> list[tuple[str, dict[str, Any]]]:
    """Every object with fields that a schema tells of, and where it stands; conditions on objects are left out."""
    found: list[tuple[str, dict[str, Any]]] = []
    if isinstance(schema, dict):
        if "properties" in schema and "object" in schema.get("type", ()):
            found.append((place, schema))
        for key, part in schema.items():
            found += list_objects(part, f"{place}.{key}")
    elif isinstance(schema, list):
        for number, part in enumerate(schema):
            found += list_objects(part, f"{place}.{number}")
    return found
