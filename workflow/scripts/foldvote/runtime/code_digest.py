"""A digest of the code that a job runs: a changed function reruns the rules that use it, a comment reruns nothing.

Snakemake does not see the modules that a script imports. The digest covers the syntax trees of a script and of every
definition of the library (function, class or constant) that the script can reach by name, directly or not.

Left out, as it cannot change a result: comments, docstrings, annotations of functions, the text of errors and of log
lines, and the modules in `NEUTRAL`. Where a reached definition fills templates, the folder `templates` beside its
module counts as well. Reaching works by names alone, so the library must not import dynamically, with `*` or by
relative imports, and no definition may act on another module when it is imported; tests hold all of that.
"""

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

# What is told, locked, drawn or merely checked, but never part of a result.
NEUTRAL = (
    "foldvote.config.old_views",
    "foldvote.config.package_names",
    "foldvote.config.timm_names",
    "foldvote.errors",
    "foldvote.io.text_table",
    "foldvote.runtime.checks",
    "foldvote.runtime.gpus",
    "foldvote.runtime.job_log",
    "foldvote.runtime.locks",
    "foldvote.runtime.signals",
    "foldvote.training.tracking",
)
_TOLD = ("Interrupted", "UserError", "ValueError", "log")  # calls whose arguments are words for a person
_ALWAYS = ""  # the statements of a module that define no name: they run whenever it is imported
_WHOLE = "*"

Place = tuple[str, str]  # module, definition


def code_digest(script: str | Path) -> str:
    """Digest of a script and of what it reaches.

    Args:
        script: a Python file; packages beside it count as the library.

    Returns:
        16 hex digits: the same after a change of comments, docstrings, layout, messages or time stamps.
    """
    script = Path(script)
    digest = hashlib.sha256()
    for place in sorted(reached(script)):
        module = _module(script.parent, place[0])
        outside = [
            f"{name}={source}.{imported}"
            for name in sorted({reference.partition(".")[0] for reference in module.references(place[1])})
            for source, imported in [module.imports.get(name, ("", ""))]
            if source and not _path(script.parent, source)
        ]
        digest.update("\0".join([*place, module.text(place[1]), *outside]).encode() + b"\0")
    for path in templates(script):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def reached(script: str | Path) -> frozenset[Place]:
    """The script's own statements and every library definition that it can reach, as (module, name).

    An empty name stands for the statements of a module that define nothing, such as a setting of `os.environ`.
    """
    script = Path(script)
    root, start = script.parent, script.stem
    found: set[Place] = set()
    waiting = [(start, name) for name in _module(root, start).definitions]
    while waiting:
        place = waiting.pop()
        if place in found or place[0].startswith(NEUTRAL):
            continue
        found.add(place)
        module = _module(root, place[0])
        waiting.append((place[0], _ALWAYS))
        waiting += [target for name in module.references(place[1]) for target in _targets(root, module, name)]
    return frozenset(found)


def templates(script: str | Path) -> list[Path]:
    """The templates that a script fills, sorted."""
    script = Path(script)
    modules = {module for module, _ in reached(script)}
    filling = [_module(script.parent, name) for name in modules]
    folders = {module.path.with_name("templates") for module in filling if module.fills_templates}
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


@dataclass
class _Module:
    """One parsed file.

    Attributes:
        path: the file.
        name: its dotted name.
        definitions: statements by the name that they define; those that define none by an empty name.
        imports: (module, name) by local name, an empty name for a module itself; wherever in the file they stand.
    """

    path: Path
    name: str
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, Place] = field(default_factory=dict)
    _texts: dict[str, str] = field(default_factory=dict)
    _references: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def fills_templates(self) -> bool:
        """Whether it imports the template engine."""
        return any(module.partition(".")[0] == "jinja2" for module, _ in self.imports.values())

    def text(self, name: str) -> str:
        """The syntax trees of a definition, as text."""
        if name not in self._texts:
            self._texts[name] = "\n".join(ast.dump(statement) for statement in self.definitions.get(name, ()))
        return self._texts[name]

    def references(self, name: str) -> frozenset[str]:
        """The names that a definition uses; `module.name` where it is looked up in a module."""
        if name not in self._references:
            statements = self.definitions.get(name, ())
            self._references[name] = frozenset(used for one in statements for used in self._used(one))
        return self._references[name]

    def _used(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
            return
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            yield node.value  # an annotation in quotes, such as "Config"
        for child in ast.iter_child_nodes(node):
            yield from self._used(child)


def _targets(root: Path, module: _Module, reference: str) -> Iterator[Place]:
    """What a name of a module stands for in the library; nothing for locals, builtins and installed packages."""
    name, _, attribute = reference.partition(".")
    if name in module.definitions:
        yield module.name, name
    if name not in module.imports:
        return
    target, imported = module.imports[name]
    if imported and _path(root, f"{target}.{imported}"):
        target, imported = f"{target}.{imported}", ""
    if not _path(root, target):
        return
    if imported:
        yield target, imported
    else:
        known = _module(root, target).definitions
        yield from ((target, one) for one in ([attribute] if attribute in known else known))


@cache
def _path(root: Path, name: str) -> Path | None:
    """The file of a library module; None for what is installed."""
    place = root.joinpath(*name.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def _module(root: Path, name: str) -> _Module:
    path = _path(root, name)
    if path is None:
        raise FileNotFoundError(f"{root}: no module {name}")
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    module = _Module(path, name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            module.imports |= {alias.asname or alias.name.partition(".")[0]: (alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            module.imports |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        _strip(node)
    for statement in tree.body:
        for defined in _defines(statement):
            module.definitions.setdefault(defined, []).append(statement)
    return module


def _defines(statement: ast.stmt) -> list[str]:
    """The names that a statement of a module defines or changes, or the empty name; nothing for imports."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
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


def _strip(node: ast.AST) -> None:
    """Take out of a syntax tree what cannot change a result."""
    body = getattr(node, "body", None)
    if isinstance(body, list):
        node.body = [statement for statement in body if not _is_text(statement)] or [ast.Pass()]  # type: ignore[attr-defined]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        node.returns = None
    elif isinstance(node, ast.arg):
        node.annotation = None
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TOLD:
        node.args, node.keywords = [], []


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a text and nothing else: a docstring, or the explanation below a field."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
