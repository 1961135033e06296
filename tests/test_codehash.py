"""What a job's digest covers, and who imports whom."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from foldvote.codehash import code_digest, code_files

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "workflow/scripts"
# The modules of training and prediction; every other one must do without torch, which takes seconds to import.
HEAVY = {"augment", "batches", "checkpoint", "compute", "inference", "jobs", "members", "models", "optimization"}
HEAVY |= {"averaging", "epochs", "heads", "losses", "losswatch", "mixes", "predict", "preview", "run", "stepping"}
HEAVY |= {
    "gradcam",
    "lessons",
    "passes",
    "team",
    "tracking",
    "training",
    "tuneworker",
    "validation",
    "views",
    "weights",
}
HEAVY_SCRIPTS = {"train.py", "predict.py", "preview.py", "weights.py", "attention.py", "tune_worker.py"}


def rule_scripts() -> list[Path]:
    return sorted(SCRIPTS.glob("*.py"))


def imported(code: str) -> list[str]:
    """What a fresh process prints, line by line, after it ran `code`."""
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# --- the digest


def rewritten(path: str, old: str, new: str) -> Callable[[Path], object]:
    """An edit that replaces the first `old` in one file of a copy."""

    def edit(folder: Path) -> None:
        text = (folder / path).read_text(encoding="utf-8")
        assert old in text
        (folder / path).write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


def appended(path: str, more: str) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        with (folder / path).open("a", encoding="utf-8") as file:
            file.write(more)

    return edit


def copy_of(tmp_path: Path, edit: Callable[[Path], object]) -> str:
    """Digest of train.py in a copy of the scripts, after an edit of the copy."""
    folder = tmp_path / "copy"
    shutil.copytree(SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    edit(folder)
    return code_digest(folder / "train.py")


SEEDS, RECIPES = "foldvote/seeds.py", "foldvote/recipes.py"
NEEDLESS = {
    "moved": lambda folder: None,
    "touched": lambda folder: [os.utime(path, (0, 0)) for path in folder.rglob("*.py")],
    "comment": appended("train.py", "\n# a comment\n"),
    "docstring": rewritten("train.py", '"""Train', '"""Learn'),
    "library docstring": rewritten(SEEDS, '"""A seed in', '"""One seed in'),
    "blank lines": rewritten(SEEDS, '    """A seed in', '    # here\n\n\n    """A seed in'),
    "explained field": rewritten(RECIPES, '"""Any name known to timm."""', '"""A net."""'),
    "unexplained field": rewritten(RECIPES, '    """Any name known to timm."""\n', ""),
    "line ends": lambda folder: (folder / SEEDS).write_bytes((folder / SEEDS).read_bytes().replace(b"\n", b"\r\n")),
    "layout": rewritten(SEEDS, "(seed: int, *key: str | int)", "(\n    seed: int,\n    *key: str | int,\n)"),
    "module of others": appended("foldvote/submission.py", "\nMORE = 1\n"),
    "module of nobody": lambda folder: (folder / "foldvote/unused.py").write_text("X = 1\n"),
}
MEANT = {
    "script": rewritten("train.py", "snakemake.log[0]", "snakemake.log[1]"),
    "constant": rewritten(SEEDS, "digest_size=8", "digest_size=9"),
    "indirect": rewritten("foldvote/files.py", "indent=2", "indent=3"),
    "package": appended("foldvote/__init__.py", "\nMORE = 1\n"),
    "default": rewritten(RECIPES, "default=1e-3", "default=2e-3"),
    "training": appended("foldvote/training.py", "\nMORE = 1\n"),
    "name": rewritten("foldvote/checkpoint.py", "def drop_checkpoints(folder", "def drop_checkpoints(place"),
    "text in use": rewritten("foldvote/folds.py", "make it anew", "make it new"),
    "import": appended("train.py", "\nimport foldvote.submission\n"),
}


@pytest.mark.parametrize("edit", NEEDLESS.values(), ids=NEEDLESS)
def test_f54_what_means_the_same_has_the_same_digest(tmp_path: Path, edit: Callable[[Path], object]) -> None:
    assert copy_of(tmp_path, edit) == code_digest(SCRIPTS / "train.py")


@pytest.mark.parametrize("edit", MEANT.values(), ids=MEANT)
def test_f51_a_changed_meaning_anywhere_below_a_script_is_another_digest(
    tmp_path: Path, edit: Callable[[Path], object]
) -> None:
    assert copy_of(tmp_path, edit) != code_digest(SCRIPTS / "train.py")


def test_a_template_counts_for_the_scripts_that_fill_it_and_for_no_others(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "filling.py").write_text("from foldvote.page import write_page\n", encoding="utf-8")
    before = code_digest(folder / "filling.py")
    appended("foldvote/templates/page.css", "\np { margin: 0 }\n")(folder)
    assert code_digest(folder / "filling.py") != before
    assert code_digest(folder / "train.py") == code_digest(SCRIPTS / "train.py")


def test_a_digest_is_short_and_each_script_has_its_own() -> None:
    digests = [code_digest(path) for path in rule_scripts()]
    assert len(set(digests)) == len(digests) >= 9
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in digests)


def test_a_change_of_training_does_not_rerun_the_data_stages() -> None:
    for name in ("manifest.py", "folds.py", "pixels.py", "submission.py", "overlap.py"):
        files = code_files(SCRIPTS / name)
        assert not {SCRIPTS / f"foldvote/{module}.py" for module in ("training", "recipes", "config")} & set(files)


def test_templates_count_for_the_scripts_that_fill_them_and_for_no_others(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "foldvote/templates/page.css").open("a", encoding="utf-8") as file:
        file.write("p { color: red; }")
    changed = {path.name for path in rule_scripts() if code_digest(path) != code_digest(folder / path.name)}
    assert "data_check.py" in changed
    assert not changed & {"train.py", "predict.py", "ensemble.py", "folds.py", "light.py"}


FOLLOW = """
import ast, importlib, sys
from pathlib import Path

def names_in(path, top_only):
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "foldvote":
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "foldvote")

for script in sys.argv[1:]:
    for name in [name for name in sys.modules if name.split(".")[0] == "foldvote"]:
        del sys.modules[name]
    for name in names_in(script, top_only=False):
        importlib.import_module(name)
    done = set()  # imports inside functions happen as well, later
    while todo := {name for name in sys.modules if name.split(".")[0] == "foldvote"} - done:
        for name in todo:
            for lazy in names_in(sys.modules[name].__file__, top_only=False):
                importlib.import_module(lazy)
        done |= todo
    print(Path(script).name, *sorted(Path(sys.modules[name].__file__).resolve() for name in done))
"""


def test_the_digest_covers_exactly_what_a_script_imports() -> None:
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-c", FOLLOW, *map(str, rule_scripts())]
    lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == len(rule_scripts())
    for line in lines:
        script, *files = line.split(" ")
        modules = [path for path in code_files(SCRIPTS / script) if path.suffix == ".py"]
        covered = {str(path.resolve()) for path in modules} - {str(SCRIPTS / script)}
        assert covered == set(files), script


def test_no_import_is_of_a_kind_that_the_digest_does_not_follow() -> None:
    for path in SCRIPTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
            call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert call not in ("__import__", "importlib.import_module", "import_module"), f"{path}: {call}"


# --- layers


def library_modules() -> list[str]:
    return sorted(
        ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__")
        for path in (SCRIPTS / "foldvote").rglob("*.py")
    )


def test_light_stages_import_no_torch() -> None:
    light = [name for name in library_modules() if name.split(".")[-1] not in HEAVY]
    wanted = ["config", "tables", "labels", "manifest", "folds", "ensemble", "submission", "listing", "locks"]
    assert {f"foldvote.{name}" for name in [*wanted, "codehash", "duplicates", "pixels"]} <= set(light)
    code = f"""
import importlib, sys
for name in {light}:
    importlib.import_module(name)
    assert not sys.modules.keys() & {{"torch", "timm", "albumentations"}}, name
"""
    assert imported(code) == []
    heavy = {SCRIPTS / f"foldvote/{name}.py" for name in HEAVY}
    for path in rule_scripts():
        assert bool(heavy & set(code_files(path))) == (path.name in HEAVY_SCRIPTS), path


def test_the_snakefile_imports_next_to_nothing() -> None:
    rules = [ROOT / "Snakefile", *sorted((ROOT / "workflow/rules").glob("*.smk"))]
    pattern = re.compile(r"^from (foldvote[\w.]*) import", re.MULTILINE)
    names = {name for path in rules for name in pattern.findall(path.read_text(encoding="utf-8"))}
    assert {"foldvote.config", "foldvote.codehash", "foldvote.locks", "foldvote.listing"} <= names
    code = f"""
import importlib, sys
for name in {sorted(names)}:
    importlib.import_module(name)
print(*sys.modules.keys() & {{"torch", "timm", "pandas", "pyarrow", "numpy", "sklearn", "cv2", "PIL", "rich"}})
"""
    assert imported(code) == [""]


def test_only_augment_knows_albumentations_and_nothing_knows_snakemake() -> None:
    for path in (SCRIPTS / "foldvote").rglob("*.py"):
        modules = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add((node.module or "").split(".")[0])
        assert "snakemake" not in modules, path
        assert ("albumentations" in modules) == (path.name == "augment.py"), path
