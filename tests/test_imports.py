"""Imports go one way: what each room may import of the others."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "turnsvr"

ALLOWED: dict[str, set[str]] = {
    "": {"twins"},
    "twins": set(),
    "limits": set(),
    "histogram": set(),
    "origin": set(),
    "special": set(),
    "ranges": set(),
    "embedded": set(),
    "own": {"ranges"},
    "stun": set(),
    "config": {"origin", "own"},
    "credentials": {"stun", "config", "histogram"},
    "stores": {"stun", "config", "credentials"},
    "turn": {"stun", "limits", "origin", "special", "ranges", "embedded", "own"},
    "relay": {"stun", "limits", "ranges"},
    "net": {"stun", "turn", "relay", "credentials", "histogram", "limits"},
    "client": {"stun"},
    "web": {"config", "credentials", "histogram", "limits", "net", "relay"},
    "admin": {"config", "credentials", "limits", "relay", "stun", "web"},
    "migrate": {"config", "special"},
    "app": {
        "admin",
        "config",
        "credentials",
        "histogram",
        "limits",
        "net",
        "origin",
        "own",
        "ranges",
        "relay",
        "stores",
        "stun",
        "turn",
        "twins",
        "web",
    },
    "cli": {"admin", "app", "client", "config", "credentials", "migrate", "relay", "stores", "stun", "twins"},
    "__main__": {"cli"},
}
"""What each room may import of the others."""


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    """`turnsvr/net/engine.py` is in net, `turnsvr/app/log.py` is log, `turnsvr/__init__.py` has no name."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py").replace("__init__", "")


def imported_rooms(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [node.module or ""]
            if node.module == "turnsvr":
                names = [f"turnsvr.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "turnsvr" and not rest.startswith("__"):
                found.add(rest.partition(".")[0])
    return found - {room_of(path)}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    assert imported_rooms(path) <= ALLOWED[room_of(path)]


def test_turn_and_relay_never_see_each_other() -> None:
    assert "relay" not in ALLOWED["turn"]
    assert "turn" not in ALLOWED["relay"]


def test_no_import_leads_back() -> None:
    below: dict[str, set[str]] = {}
    for path in modules():
        below.setdefault(room_of(path), set()).update(imported_rooms(path))
    order: list[str] = []
    while below:
        lowest = [room for room, imported in below.items() if not imported & below.keys()]
        assert lowest, f"a cycle among {sorted(below)}"
        order += lowest
        for room in lowest:
            del below[room]
    assert order.index("stun") < order.index("turn") < order.index("net") < order.index("app") < order.index("cli")
