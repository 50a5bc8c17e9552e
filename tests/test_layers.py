"""The parts of the compiled pump call one way. They share one namespace, so that no import shows what they use."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from io import StringIO
from pathlib import Path
from tokenize import NAME, generate_tokens

import pytest

COMPILED = Path(__file__).parent.parent / "turnsvr" / "relay" / "compiled"

LAYERS = ("core", "out", "path", "in", "control")
"""Folders of parts: each may use those before it and itself."""

PARTS = {str(path.relative_to(COMPILED)): path.read_text() for path in sorted(COMPILED.rglob("*.pxi"))}

IN_CORE = {"crc32", "fold", "getrandom"} | {f"{verb}{bits}" for verb in ("get", "put") for bits in (16, 32)}
"""What core may have of the system beside mutexes: arithmetic, and random words."""

_TOP = re.compile(r"^(?:cdef|cpdef|def|ctypedef)\b.*", re.MULTILINE)
_SCOPED = re.compile(r"cdef (?:enum\b|extern\b)")
_FORWARD = re.compile(r"cdef (?:struct|union) \w+$")
_STRUCT = re.compile(r"^cdef (?:struct|union) \w+:\n(?: .*\n|\n(?= ))*", re.MULTILINE)
_FIELD = re.compile(r"^(    \w.*[ *])\w+(?=(?:\[.*\])*$)", re.MULTILINE)
_NAMED = (
    re.compile(r"cdef (?:struct|union|enum|class) (\w+)"),
    re.compile(r"ctypedef .*?\(\*(\w+)\)"),
    re.compile(r"(\w+)(?:\[\w+\])? = "),
    re.compile(r"(\w+)\("),
    re.compile(r"(\w+)(?:\[\w+\])?$"),
)


def defined(text: str) -> set[str]:
    """What a part defines for all: functions, types, members of enumerations, variables."""
    found: set[str] = set()
    starts = [*_TOP.finditer(text)]
    for start, end in zip(starts, [*(match.start() for match in starts[1:]), len(text)], strict=True):
        line = start.group()
        if _FORWARD.match(line):
            continue
        if _SCOPED.match(line):
            body = text[start.end() : end]
            found |= set(re.findall(r"^    (?:[\w *]*?\b)?(\w+)(?= =|$| \"|\()", body, re.MULTILINE))
        if line not in ("cdef enum:",) and not line.startswith("cdef extern"):
            names = (match for pattern in _NAMED if (match := pattern.search(line)))
            found.add(next(names).group(1))
    return found


def used(text: str) -> set[str]:
    """Every name in a part that is neither an attribute of something nor declared as one."""
    text = _STRUCT.sub(lambda struct: _FIELD.sub(r"\1", struct.group()), text)
    found: set[str] = set()
    before = ""
    for token in generate_tokens(StringIO(text).readline):
        if token.type == NAME and before != ".":
            found.add(token.string)
        before = token.string
    return found


def arrows(parts: dict[str, str]) -> dict[str, dict[str, set[str]]]:
    """What each part uses of each other one."""
    owners = {name: part for part, text in parts.items() for name in defined(text)}
    found: dict[str, dict[str, set[str]]] = {part: {} for part in parts}
    for part, text in parts.items():
        for name in used(text) & owners.keys():
            if owners[name] != part:
                found[part].setdefault(owners[name], set()).add(name)
    return found


def layer(part: str) -> int:
    return LAYERS.index(part.partition("/")[0])


def upward(parts: dict[str, str]) -> list[str]:
    """Uses of what lies above."""
    return [
        f"{part} uses {name} of {other}"
        for part, others in arrows(parts).items()
        for other, names in others.items()
        if layer(other) > layer(part)
        for name in sorted(names)
    ]


def circle(parts: dict[str, str]) -> list[str]:
    """Parts that use each other in a ring, the first of them once more at the end."""
    try:
        TopologicalSorter(arrows(parts)).prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        return ring
    return []


def test_a_part_uses_only_what_lies_below_it() -> None:
    assert upward(PARTS) == []


def test_no_parts_use_each_other_in_a_circle() -> None:
    assert circle(PARTS) == []


def test_a_name_has_one_definition() -> None:
    defining: dict[str, list[str]] = {}
    for part, text in PARTS.items():
        for name in defined(text):
            defining.setdefault(name, []).append(part)
    assert {name: parts for name, parts in defining.items() if len(parts) > 1} == {}


def test_every_part_is_included_once_below_first() -> None:
    included = re.findall(r'^include "(.*)"$', (COMPILED / "_pump.pyx").read_text(), re.MULTILINE)
    assert sorted(included) == sorted(PARTS)
    assert included == sorted(included, key=layer)


def test_core_sees_no_socket_and_no_clock() -> None:
    system = set(re.findall(r"\b(\w+)(?: \"\w+\")?\(", (COMPILED / "_system.pxd").read_text()))
    assert {"clock_gettime", "recvmmsg", "epoll_ctl"} < system
    for part, text in PARTS.items():
        if layer(part) == 0:
            of_system = used(text) & system - IN_CORE
            assert {name for name in of_system if not name.startswith("pthread_mutex_")} == set(), part


def test_the_readme_names_what_there_is() -> None:
    readme = (COMPILED / "README.md").read_text()
    code = "\n".join(PARTS.values())
    functions = set(re.findall(r"`(?:\w+\.)?(\w+)\(\)`", readme))
    assert len(functions) > 20
    defining = "^ *(?:def|cdef .*\\b) ?\\*?{}\\("
    assert {name for name in functions if not re.search(defining.format(name), code, re.MULTILINE)} == set()
    files = set(re.findall(r"`((?:\w+/)?\w+\.\w{3})`", readme))
    assert {name for name in files if not (COMPILED / name).is_file()} == set()


LOWER = "cdef struct Lane:\n    int number\n\n\ncdef void rise(Lane *lane) noexcept nogil:\n    lane.number += 1\n"


@pytest.mark.parametrize(
    ("higher", "name"),
    [
        ("cdef void leave(Lane *lane) noexcept nogil:\n    pass\n", "leave"),
        ("cdef inline Lane *leave(Lane *lane) noexcept nogil:\n    return lane\n", "leave"),
        ("cdef bint leave(\n    Lane *lane\n) noexcept nogil:\n    return 1\n", "leave"),
        ("def leave():\n    pass\n", "leave"),
        ("cdef enum:\n    # First.\n    STAYS = 1\n    LEAVES\n", "LEAVES"),
        ("cdef enum Way:\n    LEAVES\n", "LEAVES"),
        ("cdef enum Way:\n    LEAVES\n", "Way"),
        ("cdef struct Way:\n    int number\n", "Way"),
        ("cdef class Way:\n    pass\n", "Way"),
        ("cdef int[2] _ways = [1, 2]\n", "_ways"),
        ("cdef uint8_t _ways[8]\n", "_ways"),
        ('cdef extern from "<way.h>" nogil:\n    int leave "exit"(int)\n    const int LEAVES\n', "leave"),
        ('cdef extern from "<way.h>" nogil:\n    int leave "exit"(int)\n    const int LEAVES\n', "LEAVES"),
        ("ctypedef int (*way)(char *) noexcept nogil\n", "way"),
    ],
)
def test_an_arrow_that_leads_up_is_seen(higher: str, name: str) -> None:
    lower = f"{LOWER}\n\ncdef void use() noexcept nogil:\n    {name}\n"
    assert upward({"core/a.pxi": LOWER, "out/b.pxi": higher}) == []
    assert upward({"core/a.pxi": lower, "out/b.pxi": higher}) == [f"core/a.pxi uses {name} of out/b.pxi"]


def test_what_is_said_in_comments_and_of_attributes_is_no_use() -> None:
    field = LOWER.replace("number", "leave")
    lower = field + '\n\ndef use(lane):\n    """As leave()."""\n    lane.leave = 1  # leave\n'
    assert upward({"core/a.pxi": lower, "out/b.pxi": "def leave():\n    pass\n"}) == []


def test_a_circle_is_seen() -> None:
    parts = {f"out/{name}.pxi": f"def {name}():\n    {other}()\n" for name, other in ("ab", "bc", "ca")}
    assert sorted(circle(parts)) == ["out/a.pxi", "out/a.pxi", "out/b.pxi", "out/c.pxi"] or len(circle(parts)) == 4
