"""The settings as JSON Schema, which editors read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from turnsvr.config import fields
from turnsvr.config.descriptions import describe
from turnsvr.config.restart import mark_of
from turnsvr.config.settings import Settings


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the settings file, its defaults written as the file writes them."""
    schema = Settings.model_json_schema()
    describe(schema, Settings)
    for kind in _sections():
        describe(schema["$defs"].get(kind.__name__, {}), kind)
        _mark_restarts(schema["$defs"].get(kind.__name__, {}), kind)
    _mark_restarts(schema, Settings)
    written = Settings().model_dump(mode="json")
    for name, section in schema["properties"].items():
        definition = schema["$defs"].get(section.get("$ref", "").rpartition("/")[2])
        if definition is not None:
            section.pop("default", None)
            section["description"] = definition["description"]
            for field, value in written[name].items():
                definition["properties"][field]["default"] = value
    tls = schema["$defs"]["TlsSettings"]
    tls["anyOf"] = [{"required": tls.pop("required")}, {"required": ["acme"]}]
    credentials = schema["$defs"]["CredentialSettings"]["properties"]
    credentials["secret"] = {
        "type": "string",
        "minLength": 1,
        "writeOnly": True,
        "description": "One shared secret.",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "turnsvr.yaml"}


def _mark_restarts(schema: dict[str, Any], kind: type[fields.Section]) -> None:
    """Have editors say what a reload does not change."""
    for name, described in schema.get("properties", {}).items():
        mark = mark_of(kind, name)
        if mark is not None and not mark.presence:
            described["description"] = f"{described.get('description', '')} Only a restart changes it.".strip()


def _sections(kind: type[fields.Section] = fields.Section) -> Iterator[type[fields.Section]]:
    """Every section, however deep."""
    for each in kind.__subclasses__():
        yield each
        yield from _sections(each)
