"""Builds the compiled parts where there is a C compiler; without one the install goes on without them.

They are the pump, the load generator, and the rules, which are .py files that mypyc compiles and
turnsvr/compiled_modules.py loads; and where there is clang, the programs of turnsvr/relay/offload for the kernel.
Everything else about the distribution is in pyproject.toml.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import chdir
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.build import build
from setuptools.command.build_py import build_py

if TYPE_CHECKING:
    from setuptools.command.build_ext import build_ext

_COMPILED = ("turnsvr.relay.compiled._pump", "turnsvr.client._load")

_INTERPRETED = frozenset(
    Path("turnsvr", *module.split("/"))
    for module in ("stun/__init__.py", "stun/errors.py", "turn/__init__.py", "turn/policy.py")
)
"""What mypyc takes amiss, as an enumeration with a `__new__`, or what is not worth it."""
_RULES = tuple(
    source
    for pattern in (
        "histogram",
        "limits",
        "origin",
        "plane",
        "ranges",
        "stun/*",
        "turn/*",
        "net/engine",
        "credentials/shared_secret",
        "credentials/shown",
        "credentials/static",
        "credentials/timedname",
        "relay/api",
        "relay/compiled/lanereader",
        "relay/compiled/movable",
        "relay/compiled/pump",
        "relay/compiled/sockets",
        "relay/counts",
        "relay/joining",
        "relay/moving",
        "relay/ports",
        "app/events",
        "app/figures",
        "app/sessionlog",
    )
    for source in sorted(Path("turnsvr").glob(f"{pattern}.py"))
    if source not in _INTERPRETED
)
"""What runs for each request, but no coroutines: since Python 3.12 those of mypyc warn when they are cancelled."""

_COMPILED_RULES = Path("turnsvr", "_compiled")

_OFFLOAD = Path("turnsvr", "relay", "offload")
_CLANG = ("-O2", "-g0", "-Wall", "-Wextra", "-target", "bpf", "-mcpu=v3")
"""The third instruction set is that of Linux 5.12, for compare-and-exchange."""

_SHIPPED = tuple(path for folder in ("conf", "systemd") for path in sorted(Path(folder).rglob("*")) if path.is_file())
"""Sample settings, the unit, files for fail2ban, logrotate, Prometheus, Grafana; turnsvr/shipped.py finds them."""


def _place(module: str) -> Path:
    """The module's path without a suffix."""
    return Path(*module.split("."))


def _give_reason(file: Path, reason: str) -> None:
    """Write where a part would be why it is not there; its users read it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(" ".join(reason.split()) + "\n")


def _reason_of(root: Path, module: str) -> Path:
    """Where the reason for there being no such module is given."""
    place = root / _place(module)
    return place.with_name(f"{place.name}_missing.txt")


def _give_reasons(root: Path, reason: str) -> None:
    for module in _COMPILED:
        _give_reason(_reason_of(root, module), reason)
    _give_reason(root / _COMPILED_RULES / "missing.txt", reason)


def _with_inits(source: str) -> str:
    """The module's text, in which every frozen dataclass has an __init__ of its own, which is compiled.

    The one that `dataclass` makes stays interpreted, half a microsecond a value. The text keeps its lines, so that
    tracebacks are right: the __init__ stands on one line, that of the docstring. A class that has no docstring, or more
    than plain fields, stays as it is. What changes a frozen value is found when the .py files are checked or run.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and _is_plain_value(node):
            _give_init(node, lines)
    return "".join(lines)


def _give_init(node: ast.ClassDef, lines: list[str]) -> None:
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    arguments = [ast.unparse(field) for field in fields]
    body = "; ".join(f"self.{ast.unparse(field.target)} = {ast.unparse(field.target)}" for field in fields)
    for field in fields:  # the default is the __init__'s alone
        line = lines[field.lineno - 1].encode()
        lines[field.lineno - 1] = line[: field.annotation.end_col_offset].decode() + "\n"
    first, last = node.body[0].lineno - 1, int(node.body[0].end_lineno or 0)
    lines[first:last] = [
        f"    def __init__(self, {', '.join(arguments)}) -> None: {body}\n",
        *["\n"] * (last - first - 1),
    ]
    decorator = node.decorator_list[0].lineno - 1
    lines[decorator] = lines[decorator].replace("frozen=True", "init=False, unsafe_hash=True")


def _is_plain_value(node: ast.ClassDef) -> bool:
    """Whether it is a frozen dataclass with a docstring, no base, and fields of one line whose defaults are plain."""
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    if len(decorators) != 1 or not decorators[0].startswith("dataclass(") or "frozen=True" not in decorators[0]:
        return False
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    return (
        not node.bases
        and ast.get_docstring(node) is not None
        and bool(fields)
        and all(
            field.lineno == field.end_lineno
            and not isinstance(field.value, ast.Call)
            and "ClassVar" not in ast.unparse(field)
            for field in fields
        )
        and not any(
            isinstance(part, ast.FunctionDef) and part.name in ("__init__", "__post_init__") for part in node.body
        )
    )


class _BuildPython(build_py):
    """Builds the Python modules, and puts beside them the files that an operator installs.

    An editable install finds these where they are.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source in _SHIPPED:
                target = Path(self.build_lib, "turnsvr", "share", source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


class _BuildWithout(_BuildPython):
    """Gives the reason for there being no compiled modules."""

    reason = ""

    def run(self) -> None:
        super().run()
        _give_reasons(Path() if self.editable_mode else Path(self.build_lib), self.reason)


class _BuildRules(Command):
    """Compiles the rules, which may fail, and writes their manifest."""

    description = "compile the rules"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = [
        ("build-lib=", "b", "folder of the packages"),
        ("build-temp=", "t", "folder of what is in between"),
    ]

    def initialize_options(self) -> None:
        self.editable_mode = False
        self.build_lib: str | None = None
        self.build_temp: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build_ext", ("build_lib", "build_lib"), ("build_temp", "build_temp"))

    def run(self) -> None:
        root = Path() if self.editable_mode else Path(str(self.build_lib))
        folder = root / _COMPILED_RULES
        shutil.rmtree(folder, ignore_errors=True)
        without_pump = _reason_of(root, _COMPILED[0])
        if without_pump.exists():  # what kept the pump from being built takes long to find out again
            _give_reason(folder / "missing.txt", without_pump.read_text())
            return
        try:
            # Before the compiler reads them: what changes meanwhile makes a manifest that does not fit.
            manifest = "".join(f"{sha256(source.read_bytes()).hexdigest()}  {source}\n" for source in _RULES)
            self._compile(folder)
        except (Exception, SystemExit) as error:  # mypyc's way to say that it found a mistake is to exit
            shutil.rmtree(folder, ignore_errors=True)
            _give_reason(folder / "missing.txt", f"the build failed: {error}")
            self.warn(f"the rules will be interpreted: {error}")
        else:
            (folder / "sources.txt").write_text(manifest)

    def _compile(self, folder: Path) -> None:
        from mypyc.build import mypycify

        temporary = Path(str(self.build_temp), "rules").absolute()
        shutil.rmtree(temporary / "turnsvr", ignore_errors=True)
        for source in Path("turnsvr").rglob("*.py"):
            if _COMPILED_RULES not in source.parents:
                copy = temporary / source
                copy.parent.mkdir(parents=True, exist_ok=True)
                text = source.read_text()
                copy.write_text(_with_inits(text) if source in _RULES else text)
        options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
        with chdir(temporary):
            extensions = mypycify(
                [*options, *map(str, _RULES)],
                group_name="turnsvr",
                target_dir=str(temporary),
                opt_level="2",
                debug_level="0",
            )
        for extension in extensions:
            extension.extra_compile_args = [arg for arg in extension.extra_compile_args if arg != "-Werror"]
        command: build_ext = Distribution({"name": "rules", "ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(folder), str(temporary)
        command.ensure_finalized()
        command.run()

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class _BuildOffload(Command):
    """Compiles the programs for the kernel with clang ($BPF_CLANG), which may fail."""

    description = "compile the programs for the kernel"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = [("build-lib=", "b", "folder of the packages")]

    def initialize_options(self) -> None:
        self.editable_mode = False
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        folder = (Path() if self.editable_mode else Path(str(self.build_lib))) / _OFFLOAD
        missing = folder / "programs_missing.txt"
        try:
            for source in sorted(_OFFLOAD.glob("bpf/*.bpf.c")):
                self._compile(source, folder / source.with_suffix(".o").name)
        except (OSError, subprocess.CalledProcessError) as error:
            said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else ""
            _give_reason(missing, f"clang could not build it: {said[:500] or error}")
            self.warn(f"there will be no offload: {said or error}")
        else:
            missing.unlink(missing_ok=True)

    def _compile(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        # Where distributions keep what the kernel's headers include for each machine.
        machine = Path("/usr/include", sysconfig.get_config_var("MULTIARCH") or "")
        command = [os.environ.get("BPF_CLANG", "clang"), *_CLANG, "-idirafter", str(machine)]
        command += ["-c", str(source), "-o", str(target)]
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class _Build(build):
    sub_commands: ClassVar[list[tuple[str, object]]] = [
        *build.sub_commands,
        ("build_rules", None),
        ("build_offload", None),
    ]


class _BuildOffloadAlone(build):
    sub_commands: ClassVar[list[tuple[str, object]]] = [*build.sub_commands, ("build_offload", None)]


def _without(reason: str) -> dict[str, object]:
    _BuildWithout.reason = reason
    build = {"build": _BuildOffloadAlone} if sys.platform == "linux" else {}
    return {"cmdclass": {"build_py": _BuildWithout, "build_offload": _BuildOffload, **build}}


def _with_compiled() -> dict[str, object]:
    """What setup() takes to try and build them."""
    from Cython.Build import build_ext
    from Cython.Distutils.extension import Extension

    class BuildCompiled(build_ext):  # type: ignore[misc]
        """Builds extensions that may fail, and remembers why they did."""

        def build_extension(self, ext: Extension) -> None:
            module = Path(self.get_ext_fullpath(ext.name)).with_name(_place(ext.name).name)
            missing = module.with_name(f"{module.name}_missing.txt")
            try:
                super().build_extension(ext)
            except Exception as error:
                _give_reason(missing, f"the build failed: {error}")
                raise
            missing.unlink(missing_ok=True)

    def extension(name: str) -> Extension:
        place = _place(name)
        return Extension(
            name,
            [str(place.with_suffix(".pyx"))],
            depends=[
                str(path) for pattern in ("*.pxi", "*.pxd", "*.h") for path in sorted(place.parent.rglob(pattern))
            ],
            include_dirs=[str(place.parent)],
            extra_compile_args=["-O3", "-Wall"],
            optional=True,
        )

    return {
        "ext_modules": [extension(name) for name in _COMPILED],
        "cmdclass": {
            "build": _Build,
            "build_ext": BuildCompiled,
            "build_offload": _BuildOffload,
            "build_py": _BuildPython,
            "build_rules": _BuildRules,
        },
    }


def _compiled() -> dict[str, object]:
    if sys.platform != "linux":
        return _without(f"it needs Linux, and this is {sys.platform}")
    try:
        return _with_compiled()
    except ImportError as error:
        return _without(f"there was no Cython: {error}")


setup(**_compiled())
