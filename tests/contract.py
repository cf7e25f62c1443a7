"""PromptLayer's own schemas as validators: what it would refuse, a test here refuses."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

OPENAPI = Path(__file__).parents[2] / "shared" / "promptlayer-openapi.json"
AVAILABLE = OPENAPI.is_file()


@cache
def validator(schema_name: str) -> Draft202012Validator:
    """Return the validator of one schema, in which a discriminator alone says which variant holds."""
    document = _discriminated(json.loads(OPENAPI.read_text()))
    return Draft202012Validator({"$ref": f"#/components/schemas/{schema_name}", **document})


def errors(schema_name: str, value: Any) -> list[str]:
    """Return what PromptLayer would say against the value, an empty list if nothing."""
    found = validator(schema_name).iter_errors(json.loads(json.dumps(value)))
    return [f"{error.json_path}: {error.message[:300]}" for error in found]


def _discriminated(node: Any) -> Any:
    """Rewrite each discriminated `oneOf` to if/then: taken literally, its all-default variants all match."""
    if isinstance(node, list):
        return [_discriminated(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _discriminated(value) for key, value in node.items() if key != "examples"}
    choice = node.get("discriminator")
    if "oneOf" not in node or not isinstance(choice, dict):
        return found
    field, mapping = choice["propertyName"], choice["mapping"]
    del found["oneOf"], found["discriminator"]
    found |= {"type": "object", "required": [field]}
    found["properties"] = {field: {"enum": list(mapping)}}
    found["allOf"] = [
        {"if": {"properties": {field: {"const": name}}, "required": [field]}, "then": {"$ref": reference}}
        for name, reference in mapping.items()
    ]
    return found
