"""What each setting means, from the text under its field in the models' source.

Read only where they are shown (the JSON Schema, imported settings), for that takes longer than building the models.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel


def description(model: type[BaseModel], field: str) -> str:
    """The meaning of a field of this model or of one that it is made from; empty where nothing is written."""
    for kind in model.__mro__:
        if text := _written(kind.__module__).get((kind.__qualname__, field)):
            return text
    return ""


def describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Put the meaning of every field into the model's JSON Schema, which has the properties of no other."""
    for field, property_ in schema.get("properties", {}).items():
        if text := description(model, field):
            property_.setdefault("description", text)


@cache
def _written(module: str) -> dict[tuple[str, str], str]:
    """What stands under the fields of a module's classes, by the name of class and field."""
    if not module.startswith(f"{__package__}."):
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return {(each.name, field): text for each in classes for field, text in _fields(each)}


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in zip(node.body, node.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(written))):
                yield name, inspect.cleandoc(written)
