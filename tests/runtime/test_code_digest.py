"""What the digest of a job's code covers: what changes it, what does not, and that nothing is missed."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from foldvote.config.ensemble import Vote
from foldvote.config.runtime import Runtime
from foldvote.runtime import code_digest as module
from foldvote.runtime.code_digest import NEUTRAL, code_digest, code_digests, reached, templates

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow/scripts"
ALL = {path.name for path in SCRIPTS.glob("*.py")}

Edit = Callable[[Path], object]


def rewritten(path: str, old: str, new: str) -> Edit:
    """An edit that replaces the first `old` in one file of a copy."""

    def edit(folder: Path) -> None:
        text = (folder / path).read_text(encoding="utf-8")
        assert old in text
        (folder / path).write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


def appended(path: str, more: str) -> Edit:
    def edit(folder: Path) -> None:
        with (folder / path).open("a", encoding="utf-8") as file:
            file.write(more)

    return edit


def copied(tmp_path: Path, edit: Edit) -> Path:
    """A copy of all scripts and the library, edited."""
    folder = tmp_path / "copy"
    shutil.copytree(SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    edit(folder)
    return folder


SEEDING, RECIPE = "foldvote/runtime/seeding.py", "foldvote/config/recipe.py"
NEEDLESS = {
    "moved": lambda folder: None,
    "touched": lambda folder: [os.utime(path, (0, 0)) for path in folder.rglob("*.py")],
    "comment": appended("train_member.py", "\n# a comment\n"),
    "docstring": rewritten("train_member.py", '"""Train', '"""Learn'),
    "library docstring": rewritten(SEEDING, '"""A seed in', '"""One seed in'),
    "blank lines": rewritten(SEEDING, '    """A seed in', '    # here\n\n\n    """A seed in'),
    "explained field": rewritten(RECIPE, '"""Any name known to timm."""', '"""A net."""'),
    "unexplained field": rewritten(RECIPE, '    """Any name known to timm."""\n', ""),
    "line ends": lambda folder: (folder / SEEDING).write_bytes((folder / SEEDING).read_bytes().replace(b"\n", b"\r\n")),
    "layout": rewritten(SEEDING, "(seed: int, *key: str | int)", "(\n    seed: int,\n    *key: str | int,\n)"),
    "type hint": rewritten(SEEDING, "(seed: int, *key: str | int)", "(seed: int, *key: int | str)"),
    "unused function": appended("foldvote/training/losses.py", "\n\ndef more() -> None:\n    return None\n"),
    "module of others": appended("foldvote/submission/writer.py", "\nMORE = 1\n"),
    "module of nobody": lambda folder: (folder / "foldvote/unused.py").write_text("X = 1\n"),
    "words of an error": rewritten("foldvote/splits/folds.py", "make it anew", "make it new"),
}
MEANT = {
    "script": rewritten("train_member.py", "snakemake.log[0]", "snakemake.log[1]"),
    "constant": rewritten(SEEDING, "digest_size=8", "digest_size=9"),
    "indirect": rewritten("foldvote/io/files.py", "indent=2", "indent=3"),
    "version": rewritten("foldvote/__init__.py", '__version__ = "', '__version__ = "9'),
    "default": rewritten(RECIPE, "default=1e-3", "default=2e-3"),
    "setting on import": appended("foldvote/training/losses.py", '\nimport os\nos.environ["X"] = "1"\n'),
    "when an error is raised": rewritten("foldvote/training/losses.py", "if ", "if not "),
    "name": rewritten("foldvote/training/checkpoint.py", "def drop_checkpoints(folder", "def drop_checkpoints(place"),
    "another package": rewritten("foldvote/training/step.py", "torch.nn.functional as F", "torch.special as F"),
}


@pytest.mark.parametrize("edit", NEEDLESS.values(), ids=NEEDLESS)
def test_f54_what_means_the_same_has_the_same_digest(tmp_path: Path, edit: Edit) -> None:
    assert code_digest(copied(tmp_path, edit) / "train_member.py") == code_digest(SCRIPTS / "train_member.py")


@pytest.mark.parametrize("edit", MEANT.values(), ids=MEANT)
def test_f51_a_changed_meaning_anywhere_below_a_script_is_another_digest(tmp_path: Path, edit: Edit) -> None:
    assert code_digest(copied(tmp_path, edit) / "train_member.py") != code_digest(SCRIPTS / "train_member.py")


# What users meet most between two versions, and exactly which rules each change runs again.
TABLE: dict[str, tuple[Edit, set[str]]] = {
    "a new ensemble method": (
        rewritten("foldvote/config/ensemble.py", '    "majority",\n', '    "majority",\n    "mine",\n'),
        {"build_ensemble.py", "draw_frontier.py", "write_report.py"},
    ),
    "the default of the submission": (
        rewritten("foldvote/config/ensemble.py", '= "code"', '= "name"'),
        {"answer_groups.py", "build_bundle.py", "build_ensemble.py", "join_refit.py", "write_submission.py"},
    ),
    "the bound of a view": (
        rewritten("foldvote/config/tta.py", "[1-9]", "[2-9]"),
        {
            "average_weights.py",
            "build_bundle.py",
            "compute_features.py",
            "plan_run.py",
            "predict_member.py",
            "predict_new.py",
            "tune_worker.py",
        },
    ),
    "the words of an error": (
        rewritten(
            "foldvote/data/packed_images.py", "run your command again with `-R", "rerun your command again with `-R"
        ),
        set(),
    ),
    "the progress interval": (
        rewritten("foldvote/runtime/job_log.py", "PLAIN_SECONDS = 15", "PLAIN_SECONDS = 16"),
        set(),
    ),
    "a column of the leaderboard": (
        rewritten("foldvote/ensemble/leaderboard.py", "COLUMNS = (", 'COLUMNS = (\n    "mine",'),
        {"build_ensemble.py"},
    ),
    "a column of the history": (
        rewritten("foldvote/training/history.py", "    [\n", '    [\n        pa.field("mine", pa.int32()),\n'),
        {"fit_probe.py", "train_member.py", "write_report.py"},
    ),
    "the look of a page": (
        appended("foldvote/report/templates/page.css", "\np { margin: 0 }\n"),
        {"check_data.py", "write_report.py"},
    ),
}


@pytest.mark.parametrize(("edit", "rerun"), TABLE.values(), ids=TABLE)
def test_f51_a_change_reruns_only_what_it_can_change(tmp_path: Path, edit: Edit, rerun: set[str]) -> None:
    folder = copied(tmp_path, edit)
    assert {name for name in ALL if code_digest(folder / name) != code_digest(SCRIPTS / name)} == rerun


def test_the_first_six_changes_touch_neither_training_nor_images() -> None:
    for name, (_, rerun) in list(TABLE.items())[:6]:
        assert not rerun & {"train_member.py", "build_manifest.py", "pack_images.py"}, name


def test_a_digest_is_short_and_each_script_has_its_own() -> None:
    digests = [code_digest(SCRIPTS / name) for name in ALL]
    assert len(set(digests)) == len(digests) >= 20
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in digests)


def test_templates_count_for_the_scripts_that_fill_them() -> None:
    filled = {name for name in ALL if templates(SCRIPTS / name)}
    assert filled == {"check_data.py", "write_report.py"}
    assert {path.name for path in templates(SCRIPTS / "write_report.py")} >= {"page.css", "report.html"}


# --- digests that are kept


def test_digests_are_kept_until_any_file_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = tmp_path / "kept/code.json"
    fresh = {name: code_digest(SCRIPTS / name) for name in ALL}
    assert code_digests(SCRIPTS, known) == fresh
    asked: list[Path] = []
    monkeypatch.setattr(module, "code_digest", lambda script: asked.append(script) or "0" * 16)
    assert code_digests(SCRIPTS, known) == fresh
    moved_and_touched = copied(tmp_path, NEEDLESS["touched"])
    assert code_digests(moved_and_touched, known) == fresh
    assert not asked
    appended("foldvote/report/templates/page.css", "\n")(moved_and_touched)
    code_digests(moved_and_touched, known)
    assert {path.name for path in asked} == ALL


@pytest.mark.parametrize("name", ["constant", "the look of a page"])
def test_kept_digests_of_other_code_are_not_used(tmp_path: Path, name: str) -> None:
    folder, known = copied(tmp_path, (MEANT | {key: edit for key, (edit, _) in TABLE.items()})[name]), tmp_path / "code"
    before = code_digests(SCRIPTS, known)
    now = code_digests(folder, known)
    assert now == {name: code_digest(folder / name) for name in ALL}
    assert now != before


def test_a_new_module_or_python_and_a_link_to_a_folder_elsewhere_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, folder = tmp_path / "code.json", copied(tmp_path, NEEDLESS["moved"])
    linked = (folder / "foldvote/report").rename(tmp_path / "elsewhere")
    (folder / "foldvote/report").symlink_to(linked)
    code_digests(folder, known)
    states = [json.loads(known.read_text())["state"]]
    for change in (
        lambda: NEEDLESS["module of nobody"](folder),
        lambda: appended("templates/page.css", "\n")(linked),
        lambda: monkeypatch.setattr(sys, "version", "4.0"),
    ):
        change()
        code_digests(folder, known)
        states.append(json.loads(known.read_text())["state"])
    assert len(set(states)) == 4


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"state": "x"}', "one digest", "folder"])
def test_a_damaged_file_of_digests_is_made_again_and_an_unwritable_one_does_without(
    tmp_path: Path, damage: str
) -> None:
    known = tmp_path / "code.json"
    right = code_digests(SCRIPTS, known)
    if damage == "one digest":
        known.write_text(known.read_text().replace(right["train_member.py"], "0" * 16))
    elif damage == "folder":
        known.unlink()
        known.mkdir()
    else:
        known.write_text(damage)
    assert code_digests(SCRIPTS, known) == right
    assert known.is_dir() == (damage == "folder")


# --- nothing that runs is missed


@contextmanager
def executed() -> Iterator[set[tuple[str, str]]]:
    """The library definitions of which any code runs during the block, as (module, name)."""
    found: set[tuple[str, str]] = set()
    prefix = f"{SCRIPTS}{os.sep}"

    def note(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(prefix):
            module = ".".join(Path(code.co_filename[len(prefix) :]).with_suffix("").parts)
            name = code.co_qualname.partition(".")[0]
            if not name.startswith("<"):  # a module's own statements run when it is imported
                found.add((module.removesuffix(".__init__"), name))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def missed(found: set[tuple[str, str]], *scripts: str) -> set[tuple[str, str]]:
    covered = {place for script in scripts for place in reached(SCRIPTS / script)}
    return {place for place in found - covered if not place[0].startswith(NEUTRAL)}


def test_all_code_that_runs_in_data_stages_and_training_is_covered(tmp_path: Path) -> None:
    from foldvote.inference.predict_member import PartFiles, predict_member
    from foldvote.runtime.resources import JobResources
    from foldvote.runtime.seeding import MemberSeeds
    from foldvote.training.train_member import MemberInputs, train_member
    from support.tiny_member import make_tiny, recipe

    with executed() as found:
        tiny = make_tiny(tmp_path)
    assert len(found) > 20
    # The support module draws the images and writes their manifest itself.
    own = {("foldvote.data.manifest_table", "manifest_schema"), ("foldvote.io.parquet", "required")}
    own |= {("foldvote.config.folds", "Folds"), ("foldvote.runtime.seeding", "generator")}
    own |= {("foldvote.data.metadata", "metadata_columns")}
    assert missed(found, "make_folds.py", "pack_images.py") - own == set()

    resources = JobResources(0, 1, Runtime(workers=0))
    changes = {"ema": 0.9, "mix": [{"name": "mixup", "p": 0.5}], "soup": 2, "augment": {"hflip": 0.5, "crop": 0.1}}
    asked, files = recipe(**changes), tiny.files()
    with executed() as found:
        train_member(
            MemberSeeds(1, "tiny", 0), asked, "code", MemberInputs(tiny.pixels, tiny.split), tiny.resume, tmp_path,
            files,
            resources,
        )  # fmt: skip
    assert len(found) > 60
    assert missed(found, "train_member.py") == set()

    gamma = {"name": "gamma", "steps": [{"RandomGamma": {"p": 1}}]}
    parts = [PartFiles("oof", tiny.pixels, tmp_path / "model=tiny/fold=0/oof.parquet", tmp_path / "oof.json")]
    with executed() as found:
        predict_member(
            files.weights, files.sidecar, tiny.split, parts, ["identity", "crop-centre-90", gamma], resources
        )
    assert len(found) > 40
    assert missed(found, "predict_member.py") == set()


def test_all_code_that_runs_in_the_ensemble_is_covered(tmp_path: Path) -> None:
    from support.member_predictions import Run

    run = Run(tmp_path, models={"one": ("identity", "hflip"), "two": ("identity",)})
    with executed() as found:
        run.make(settings=Vote(draws=100))
    assert len(found) > 60
    assert missed(found, "build_ensemble.py") == set()


def test_no_import_is_of_a_kind_that_the_digest_does_not_follow() -> None:
    for path in SCRIPTS.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            relative = isinstance(node, ast.ImportFrom) and (node.level or any(name.name == "*" for name in node.names))
            assert not relative, f"{path}: relative or * import"
            call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert call not in ("__import__", "importlib.import_module", "import_module", "globals"), f"{path}: {call}"
        if path.name == "__init__.py" and path != SCRIPTS / "foldvote/__init__.py":
            assert [type(node) for node in tree.body] == [ast.Expr], f"{path}: holds more than a docstring"


def test_neutral_modules_are_there() -> None:
    for name in NEUTRAL:
        assert SCRIPTS.joinpath(*name.split(".")).with_suffix(".py").is_file(), name


def test_the_library_does_not_know_snakemake() -> None:
    code = "import sys, foldvote.commands.session; print('snakemake' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
