"""A digest of the code that a job runs, so that a changed function reruns what it changes and a comment nothing.

Snakemake does not see the modules that a script imports. The digest covers the syntax trees of a script and of every
module of this library that it imports, directly or not, without docstrings and comments. Where one of them fills
templates, the folder `templates` beside it counts as well. Standard library only.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path


def code_digest(script: str | Path) -> str:
    """Digest of a script and its library modules.

    Args:
        script: a Python file; packages beside it count as the library.

    Returns:
        16 hex digits: the same after a change of comments, docstrings, layout or time stamps.
    """
    script = Path(script)
    digest = hashlib.sha256()
    for path in code_files(script):
        meaning = _parsed(path)[1].encode() if path.suffix == ".py" else path.read_bytes()
        digest.update(path.relative_to(script.parent).as_posix().encode() + b"\0" + meaning + b"\0")
    return digest.hexdigest()[:16]


def code_files(script: str | Path) -> list[Path]:
    """The script and every library file it imports, directly or not, and the templates these fill, sorted."""
    script = Path(script)
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        waiting += [other for name in _parsed(path)[0] for other in _library_files(script.parent, name)]
    return sorted(found | {text for path in found if _fills_templates(path) for text in _templates(path)})


@cache
def _parsed(path: Path) -> tuple[tuple[str, ...], str]:
    """The names that a file imports, and its syntax tree as text, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_text(statement)] or [ast.Pass()]
    return tuple(names), ast.dump(tree)


@cache
def _library_files(root: Path, name: str) -> list[Path]:
    """Files of `a.b.c` below the root: the module and the packages that hold it; none for installed modules."""
    parts = name.split(".")
    files = []
    for length in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:length])
        files += [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]
    return files


def _fills_templates(path: Path) -> bool:
    """Whether a module imports the template engine."""
    return any(name == "jinja2" for name in _parsed(path)[0])


def _templates(path: Path) -> list[Path]:
    return [text for text in path.with_name("templates").rglob("*") if text.is_file()]


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a text and nothing else: a docstring, or the explanation below a field."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
