"""A digest of the code that a job runs: a changed function reruns the rules that use it, a comment reruns nothing.

Snakemake does not see the modules that a script imports. The digest covers the syntax trees of a script and of every
definition of the library (function, class or constant) that the script can reach by name, directly or not.

What cannot change a result is left out: comments, docstrings, annotations of functions, the text of errors and log
lines, and the modules in `NEUTRAL`. If a definition that the script reaches fills templates, the folder `templates`
beside its module is included. Definitions are followed by name only. So the library must not import dynamically, with
`*` or relatively, and no definition may change another module on import; tests check all of this.
"""

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from foldvote.errors import UserError
from foldvote.io.files import canonical, sha256_bytes, write_json

# Modules for messages, locks and checks, which are never part of a result.
NEUTRAL = (
    "foldvote.config.old_views",
    "foldvote.config.other_names",
    "foldvote.config.package_names",
    "foldvote.config.timm_names",
    "foldvote.errors",
    "foldvote.io.text_table",
    "foldvote.runtime.checks",
    "foldvote.runtime.garbage",
    "foldvote.runtime.gpus",
    "foldvote.runtime.job_log",
    "foldvote.runtime.locks",
    "foldvote.runtime.signals",
    "foldvote.training.tracking",
)
_TOLD = ("Interrupted", "UserError", "ValueError", "log")  # calls whose arguments are messages
_ALWAYS = ""  # the statements of a module that define no name: they run whenever it is imported

Place = tuple[str, str]  # module, definition


def code_digests(scripts: str | Path, known: str | Path) -> dict[str, str]:
    """Digests of all scripts of a folder, by file name.

    They take most of a second, so that they are kept in a file, with a checksum of everything that they depend on. If
    that is not the checksum of the files as they are now, the digests are computed again.

    Args:
        scripts: folder of the scripts and of the library.
        known: the JSON file that keeps the digests. It may be missing, damaged or not writable.
    """
    scripts = Path(scripts)
    state = _state(scripts)
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(Path(known).read_text(encoding="utf-8"))
        if kept["state"] == state and kept["sha256"] == _proof(state, kept["digests"]):
            return dict(kept["digests"])
    digests = {path.name: code_digest(path) for path in sorted(scripts.glob("*.py"))}
    with suppress(UserError):
        write_json(known, {"state": state, "digests": digests, "sha256": _proof(state, digests)})
    return digests


def _state(scripts: Path) -> str:
    """Checksum of the names and contents of all files below a folder, and of the Python version, which parses them."""
    state = hashlib.sha256(sys.version.encode())
    for folder, folders, names in os.walk(scripts, followlinks=True):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for path in (Path(folder, name) for name in sorted(names)):
            if path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                state.update(f"{path.relative_to(scripts).as_posix()}\0{content}\0".encode())
    return state.hexdigest()


def _proof(state: str, digests: dict[str, str]) -> str:
    return sha256_bytes(canonical([state, digests]).encode())


def code_digest(script: str | Path) -> str:
    """Digest of a script and of all definitions that it reaches.

    Args:
        script: a Python file; packages beside it count as the library.

    Returns:
        16 hex digits: the same after a change of comments, docstrings, layout, messages or time stamps.
    """
    script = Path(script)
    digest = hashlib.sha256()
    for module, name in sorted(reached(script)):
        digest.update(f"{module}\0{name}\0".encode() + _definition(script.parent, module, name).digest)
    for path in templates(script):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache  # asked for by the digest and for the templates
def reached(script: str | Path) -> frozenset[Place]:
    """The script's own statements and every library definition that it can reach, as (module, name).

    An empty name stands for the statements of a module that define nothing, such as a setting of `os.environ`.
    """
    script = Path(script)
    root = script.parent
    found: set[Place] = set()
    waiting = [(script.stem, name) for name in _module(root, script.stem).definitions]
    while waiting:
        place = waiting.pop()
        if place not in found and not place[0].startswith(NEUTRAL):
            found.add(place)
            waiting += [(place[0], _ALWAYS), *_definition(root, *place).uses]
    return frozenset(found)


def templates(script: str | Path) -> list[Path]:
    """The templates that a script fills, sorted."""
    script = Path(script)
    modules = [_module(script.parent, name) for name in {module for module, _ in reached(script)}]
    filling = [module for module in modules if any(name == "jinja2" for name, _ in module.imports.values())]
    folders = [module.path.with_name("templates") for module in filling]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class _Module:
    """One parsed file.

    Attributes:
        path: the file.
        definitions: statements by the name that they define; `_ALWAYS` for those that define none.
        imports: (module, name) by local name, an empty name for a module itself.
    """

    path: Path
    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, Place]


@dataclass(frozen=True)
class _Definition:
    """One definition: a digest of its syntax tree, and the library definitions that it uses."""

    digest: bytes
    uses: tuple[Place, ...]


@cache
def _path(root: Path, name: str) -> Path | None:
    """The file of a library module; None for an installed package."""
    place = root.joinpath(*name.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def _module(root: Path, name: str) -> _Module:
    path = _path(root, name)
    if path is None:
        raise FileNotFoundError(f"{root}: no module {name}")
    module = _Module(path, {}, {})
    for statement in ast.parse(path.read_text(encoding="utf-8"), str(path)).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            module.imports.update(_imported(statement))
        for defined in _defines(statement):
            module.definitions.setdefault(defined, []).append(statement)
    return module


@cache
def _definition(root: Path, module_name: str, name: str) -> _Definition:
    module = _module(root, module_name)
    parts: list[str] = []
    used: set[str] = set()
    imports = dict(module.imports)
    for statement in module.definitions.get(name, ()):
        _read(statement, parts, used, imports)
    if name in module.definitions:
        module.definitions[name] = []  # read once; the garbage collector would walk over the trees again and again
    uses = {place for one in used for place in _targets(root, module_name, one, imports)}
    names = {one.partition(".")[0] for one in used}
    outside = {one: imports[one] for one in names & imports.keys() if not _path(root, imports[one][0])}
    meaning = "\0".join([*parts, repr(sorted(outside.items()))])
    return _Definition(hashlib.sha256(meaning.encode()).digest(), tuple(sorted(uses)))


def _read(node: ast.AST, parts: list[str], used: set[str], imports: dict[str, Place]) -> None:
    """Collect the nodes of a syntax tree, the names that it uses and its imports; what changes no result is skipped.

    Args:
        node: the tree.
        parts: node types and plain values are appended to this list.
        used: names are added to this set, as `module.name` if they are attributes of a name.
        imports: imports inside functions are added to this dict.
    """
    left_out: tuple[str, ...] = ("ctx", "type_comment", "kind")
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        left_out = ("returns", "type_comment")
    elif isinstance(node, ast.arg):
        left_out = ("annotation", "type_comment")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TOLD:
        left_out = ("args", "keywords")
    elif isinstance(node, ast.Name):
        used.add(node.id)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        used.add(f"{node.value.id}.{node.attr}")
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
        used.add(node.value)  # an annotation in quotes, such as "Config"
    elif isinstance(node, ast.Import | ast.ImportFrom):
        imports.update(_imported(node))
    parts.append(type(node).__name__)
    for name in node._fields:
        value = None if name in left_out else getattr(node, name, None)
        if isinstance(value, ast.AST):
            _read(value, parts, used, imports)
        elif isinstance(value, list):
            parts.append(f"{name}[")
            for item in value:
                if isinstance(item, ast.AST) and not _is_text(item):
                    _read(item, parts, used, imports)
                elif not isinstance(item, ast.AST):
                    parts.append(repr(item))
            parts.append("]")
        elif value is not None:
            parts.append(f"{name}={value!r}")


def _targets(root: Path, module: str, reference: str, imports: dict[str, Place]) -> Iterator[Place]:
    """The library definitions that a name in a module refers to; none for locals, builtins and installed packages."""
    name, _, attribute = reference.partition(".")
    if name in _module(root, module).definitions:
        yield module, name
    if name not in imports:
        return
    target, imported = imports[name]
    if imported and _path(root, f"{target}.{imported}"):
        target, imported = f"{target}.{imported}", ""
    if not _path(root, target):
        return
    if imported:
        yield target, imported
    else:
        known = _module(root, target).definitions
        yield from ((target, one) for one in ([attribute] if attribute in known else known))


def _imported(statement: ast.Import | ast.ImportFrom) -> dict[str, Place]:
    """(module, name) by local name."""
    if isinstance(statement, ast.Import):
        return {alias.asname or alias.name.partition(".")[0]: (alias.name, "") for alias in statement.names}
    return {alias.asname or alias.name: (statement.module or "", alias.name) for alias in statement.names}


def _defines(statement: ast.stmt) -> list[str]:
    """The names that a module-level statement defines, or `_ALWAYS` if none; no name for imports and strings."""
    if isinstance(statement, ast.Import | ast.ImportFrom) or _is_text(statement):
        return []
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets = [statement.target]
    else:
        return [_ALWAYS]
    names = [
        node.id
        for target in targets
        for node in ast.walk(target)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    return names or [_ALWAYS]


def _is_text(statement: ast.AST) -> bool:
    """Whether a statement is only a string: a docstring, or the description below a field."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
