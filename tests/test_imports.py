"""Imports go one way: what each room may import of the others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "turnsvr"

ALLOWED: dict[str, set[str]] = {
    "": {"compiled_modules"},
    "compiled_modules": set(),
    "shipped": set(),
    "sparing": set(),
    "limits": set(),
    "backoff": set(),
    "eviction": set(),
    "histogram": set(),
    "origin": set(),
    "special_purpose": set(),
    "ranges": set(),
    "embedded": set(),
    "netlink": set(),
    "own": {"ranges"},
    "stun": set(),
    "plane": {"stun"},
    "config": {"origin", "own"},
    "credentials": {"stun", "config", "histogram"},
    "stores": {"stun", "backoff", "config", "credentials"},
    "turn": {"stun", "plane", "limits", "origin", "special_purpose", "ranges", "embedded", "own"},
    "relay": {"stun", "plane", "limits", "netlink", "ranges"},
    "net": {"stun", "plane", "turn", "relay", "credentials", "eviction", "histogram", "limits", "netlink", "ranges"},
    "client": {"stun"},
    "web": {"config", "credentials", "eviction", "histogram", "limits", "net", "ranges", "relay", "sparing", "stun"},
    "admin": {"config", "credentials", "limits", "net", "relay", "stun", "web"},
    "migrate": {"config", "special_purpose"},
    "app": {
        "admin",
        "backoff",
        "config",
        "credentials",
        "histogram",
        "limits",
        "net",
        "origin",
        "own",
        "ranges",
        "relay",
        "sparing",
        "stores",
        "stun",
        "turn",
        "compiled_modules",
        "web",
    },
    "cli": {
        "admin",
        "app",
        "client",
        "config",
        "credentials",
        "migrate",
        "relay",
        "shipped",
        "stores",
        "stun",
        "compiled_modules",
    },
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
    """Nor through what both import: their values cross in plane, which imports neither."""
    for room, other in (("turn", "relay"), ("relay", "turn")):
        assert other not in {room, *below(room)}


PUMPS: dict[str, set[str]] = {
    "counts": set(),
    "joining": set(),
    "api": {"counts", "joining"},
    "moving": {"api", "counts"},
    "sockets": set(),
    "ports": {"api", "sockets"},
    "splice": {"joining", "sockets"},
    "tcprelay": {"api", "joining", "ports", "sockets", "splice"},
} | {pump: {"api", "counts", "joining", "moving", "ports", "sockets", "tcprelay"} for pump in ("portable", "compiled")}
"""What the parts of relay may import of each other: the pumps share what both need, and never see each other."""


@pytest.mark.parametrize("part", PUMPS)
def test_the_pumps_share_what_both_need_and_nothing_else(part: str) -> None:
    files = [*(ROOT / "relay" / part).rglob("*.py"), *(ROOT / "relay").glob(f"{part}.py")]
    assert files
    for path in files:
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        names = [node.module or "" for node in nodes if (node.module or "").startswith("turnsvr.relay.")]
        names += [
            f"turnsvr.relay.{each.name}" for node in nodes if node.module == "turnsvr.relay" for each in node.names
        ]
        assert {name.split(".")[2] for name in names} - {part} <= PUMPS[part], path


def below(room: str) -> set[str]:
    """Every room that this one may import, itself or through others."""
    return ALLOWED[room].union(*map(below, ALLOWED[room]))


def test_a_value_that_crosses_the_wall_stands_once() -> None:
    """No class of the rules has the fields of one of the pumps: it would be the same value, written twice."""
    found: dict[tuple[str, ...], list[str]] = {}
    for room in ("turn", "relay", "plane.py"):
        for path in sorted([*(ROOT / room).rglob("*.py"), *ROOT.glob(room)]):
            if path.is_file():
                for name, fields in classes_of(path):
                    found.setdefault(fields, []).append(name)
    assert [names for fields, names in found.items() if len(fields) > 2 and len(names) > 1] == []


def classes_of(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each class of a file, with its annotated fields but the first: the number, which has two names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            fields = [ast.unparse(each.target) for each in node.body if isinstance(each, ast.AnnAssign)]
            yield f"{path.stem}.{node.name}", tuple(fields[1:])


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


def imported_on_import(path: Path, known: set[str]) -> set[str]:
    """Modules of ours that this one imports outside of functions, for types alone as well."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{each.name}" if f"{node.module}.{each.name}" in known else node.module
                for each in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)
    return found & known


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in modules()
    }
    left = {name: imported_on_import(path, set(names)) - {name} for name, path in names.items()}
    while leaves := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in leaves:
            del left[name]
    while left and (unused := set(left) - set().union(*left.values())):
        for name in unused:
            del left[name]
    assert not left, f"a circle among {sorted(left)}"
