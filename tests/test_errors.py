"""Errors for the user: all faults at once, a long list cut, the nearest name, and advice that can be followed."""

import ast
import re
from pathlib import Path

import pytest

from foldvote.errors import UserError, did_you_mean, raise_all

LIBRARY = Path(__file__).resolve().parents[1] / "workflow/scripts/foldvote"
BARE = re.compile(r"`snakemake (-R|[a-z_]+`)|run `snakemake")


def test_a_long_list_of_faults_is_cut_and_counted() -> None:
    raise_all([])
    with pytest.raises(UserError) as error:
        raise_all(f"fault {number}" for number in range(25))
    assert len(error.value.faults) == 21 and error.value.faults[-1] == "... and 5 more of this kind"


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("epochz", ["epoch", "epochs"], "epochs"),  # as many letters to change, and the same length
        ("adamm", ["adamw", "adam"], "adam"),  # a doubled letter
        ("acc", ["mcc", "accuracy"], "accuracy"),  # it begins so
        ("Gendr", ["age", "Gender"], "Gender"),
        ("hflp", ["vflip", "hflip"], "hflip"),
    ],
)
def test_the_nearest_name_is_told(name: str, known: list[str], meant: str) -> None:
    assert did_you_mean(name, known) == f"; did you mean {meant!r}?"


def test_no_name_is_told_that_is_not_near() -> None:
    assert did_you_mean("tta", ["views", "fold"]) == "" == did_you_mean("learning_rate", ["drop_rate"], 0.7)


def texts(path: Path) -> list[str]:
    """The texts of a module that are no docstrings; of f-strings their fixed parts, with {} for the others."""
    found, tree = [], ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            found.append(node.value)
    return found


def test_f187_no_error_advises_a_command_without_cores_and_configuration() -> None:
    advised = {path.name: text for path in LIBRARY.rglob("*.py") for text in texts(path) if BARE.search(text)}
    assert not advised
    assert any("run your command again with `-R " in text for text in texts(LIBRARY / "splits/folds.py"))
