"""Does a document keep to the schema that the reference publishes?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

_REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def problems(name: str, document: Any) -> list[str]:
    """What is wrong with it, and every field that the schema does not name.

    Args:
        name: of the schema, such as `study`.
    """
    schema = json.loads((_REFERENCE / f"{name}.schema.json").read_text())
    for each in schema["$defs"].values():
        each["additionalProperties"] = each.get("additionalProperties", False)
    return [f"{each.json_path}: {each.message}" for each in Draft202012Validator(schema).iter_errors(document)]
