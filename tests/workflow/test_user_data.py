"""The user's configuration and data: what is wrong is told before anything runs, what is new reruns what it must."""

import shutil
import time
from pathlib import Path

import pandas as pd
import pytest

from foldvote.data.packed_images import PackedImages
from support.data_folders import maskbase_folder, table_folder
from support.snakemake_run import CONFIG, planned, snakemake, write_config


def test_f28_f29_f31_a_wrong_configuration_is_told_whole_before_anything_runs(tmp_path: Path) -> None:
    write_config(tmp_path, resutls="x", folds={"k": 0}, models={"tiny": {"net": "resnet1O"}})
    printed = snakemake(tmp_path, code=None)
    assert "config.yaml: resutls: unknown key; did you mean 'results'?" in printed
    assert "config.yaml: folds.k: " in printed
    assert "timm knows no net 'resnet1O'; did you mean 'resnet18'?" in printed
    assert "Traceback" not in printed
    (tmp_path / "config.yaml").write_text("seed: 010\nseed: 1\n")
    printed = snakemake(tmp_path, code=None)
    assert "config.yaml, line 1: seed: YAML reads 010 as an octal number" in printed
    assert "config.yaml, line 2: seed: the key stands twice" in printed
    assert not (tmp_path / "results").exists()


def test_f46_missing_weights_are_told_before_anything_runs(tmp_path: Path) -> None:
    write_config(tmp_path, models={"tiny": CONFIG["models"]["tiny"] | {"pretrained": "nowhere.safetensors"}})
    started = time.monotonic()
    printed = snakemake(tmp_path, code=None)
    assert "nowhere.safetensors" in printed
    assert time.monotonic() - started < 60
    assert not (tmp_path / "results/demo").exists()


def test_f17_files_that_are_not_there_are_told_in_a_line_each(tmp_path: Path) -> None:
    home_task(tmp_path)
    (tmp_path / "data/train/train.csv").unlink()
    printed = snakemake(tmp_path, "-n", "--config", "corrections=nowhere.csv", code=None)
    assert "the train table of data: data/train/train.csv is not there" in printed
    assert "corrections: data/nowhere.csv is not there" in printed
    printed = snakemake(tmp_path, "-n", "--config", "data_root=elsewhere", code=None)
    assert "data_root: elsewhere is not there; correct the path" in printed
    assert "Exception" not in printed


def home_task(folder: Path) -> Path:
    """A small folder of the home task with a prepared workflow."""
    root = maskbase_folder(folder / "data")
    data = {"layout": "maskbase"}
    folds = {"k": 2, "stratify": "label"}
    write_config(folder, data=data, data_root="data", answers=None, folds=folds, images={"min_side": 8})
    return root


@pytest.mark.parametrize("split", ["train", "test"])
def test_f51_an_added_photograph_redoes_what_it_must_and_no_more(tmp_path: Path, split: str) -> None:
    root = home_task(tmp_path)
    pixels = f"results/data/pixels/size=32x24/roi=none/{split}.arrow"
    snakemake(tmp_path, "prepare", pixels, "results/data/overlap.json")
    assert planned(tmp_path, "prepare", pixels, "results/data/overlap.json") == {}
    if split == "train":
        source = next((root / "train/images").glob("*/mask1.*")).parent
        person = source.with_name("000009_female_Asian_23")
        shutil.copytree(source, person)
        with (root / "train/train.csv").open("a") as table:
            table.write("000009,female,Asian,23,000009_female_Asian_23\n")
        expected = {"manifest": 1, "folds": 1, "pixels": 1}
    else:
        source = next((root / "eval/images").glob("*.jpg"))
        shutil.copy(source, source.with_name("f" * 40 + ".jpg"))
        with (root / "eval/info.csv").open("a") as table:
            table.write("f" * 40 + ".jpg,0\n")
        expected = {"manifest": 1, "pixels": 1}
    assert planned(tmp_path, "prepare", pixels) == expected


def test_images_are_packed_once_for_each_size_and_fit_of_the_models_whatever_name_the_size_has(tmp_path: Path) -> None:
    home_task(tmp_path)
    tiny = CONFIG["models"]["tiny"]
    models = {"tiny": {}, "whole": {"fit": "pad"}, "larger": {"pack": 1.25}, "as_large": {"size": "40x30"}}
    models = {name: tiny | changes for name, changes in models.items()}
    write_config(
        tmp_path, data={"layout": "maskbase"}, data_root="data", answers=None, images={"min_side": 8}, models=models
    )
    folder = tmp_path / "results/data/pixels"
    wanted = ["size=32x24/roi=none", "size=32x24/roi=none/fit=pad", "size=40x30/roi=none"]
    snakemake(tmp_path, *(f"results/data/pixels/{name}/train.arrow" for name in wanted))
    found = {path.parent.relative_to(folder).as_posix(): PackedImages(path) for path in folder.rglob("*.arrow")}
    assert sorted(found) == wanted and [found[name].framing.folder for name in wanted] == wanted
    plan = planned(tmp_path, "results/train/model=larger/fold=0/model.safetensors", "prepare")
    assert "pixels" not in plan and plan["train"] == 1


def test_f15_an_image_that_changed_since_the_manifest_stops_the_packing_and_is_named(tmp_path: Path) -> None:
    root = home_task(tmp_path)
    snakemake(tmp_path, "results/data/manifest/split=train/manifest.parquet")
    image = next((root / "train/images").glob("*/normal.*"))
    content = bytearray(image.read_bytes())
    content[-3] ^= 1
    image.write_bytes(content)
    printed = snakemake(tmp_path, "prepare", code=None)
    assert f"image {image.parent.name}/{image.name}" in printed
    assert "has changed since the manifest was made" in printed
    assert not (tmp_path / "results/data/pixels/size=32x24/roi=none/train.arrow").exists()


def test_f01_a_bad_photograph_is_refused_in_one_line_and_quarantined_on_request(tmp_path: Path) -> None:
    root = home_task(tmp_path)
    image = next((root / "train/images").glob("*/normal.*"))
    image.write_bytes(b"")
    manifest = "results/data/manifest/split=train/manifest.parquet"
    printed = snakemake(tmp_path, manifest, code=None)
    assert f"{image.relative_to(tmp_path)}: empty" in printed
    assert "images.on_bad: quarantine" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / manifest).exists()
    snakemake(tmp_path, manifest, "--config", "images={on_bad: quarantine, min_side: 8}")
    assert pd.read_parquet(tmp_path / "results/data/quarantine")["reason"].tolist() == ["empty"]


def test_a_table_of_any_images_with_groups_is_split_and_packed(tmp_path: Path) -> None:
    rows = [(f"images/{group}_{shot}.jpg", f"person {group}", "ab"[group % 2]) for group in range(8) for shot in "xy"]
    table_folder(tmp_path / "data", rows)
    data = {"layout": "table", "table": "table.csv"}
    write_config(tmp_path, data=data, data_root="data", answers=None, folds={"k": 2}, images={"min_side": 8})
    snakemake(tmp_path, "prepare")
    folds = pd.read_parquet(tmp_path / "results/folds/folds.parquet")
    assert folds.groupby("group")["fold"].nunique().eq(1).all()
    assert len(folds) == 16


def test_a_path_spelled_otherwise_reruns_nothing(finished: Path) -> None:
    (finished / "link").symlink_to("results")
    try:
        for spelling in ("results/", ".//results", f"{finished}/results/", f"../{finished.name}/results", "link"):
            assert planned(finished, "--config", f"results={spelling}") == {}, spelling
        assert planned(finished, "--config", "results=others")["train"] == 2
    finally:
        (finished / "link").unlink()


def test_the_home_folder_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    home_task(tmp_path / "home")
    (tmp_path / "here").mkdir()
    write_config(tmp_path / "here", data={"layout": "maskbase"}, data_root="~/data", results="~/out", answers=None)
    snakemake(tmp_path / "here", "prepare")
    assert (tmp_path / "home/out/folds/certificate.json").is_file()
    assert not [path for path in (tmp_path / "here").iterdir() if "~" in path.name]


def test_files_beside_the_data_that_no_row_names_rerun_nothing(tmp_path: Path) -> None:
    rows = [(f"p{person}_{shot}.jpg", f"p{person}", "xy"[person % 2]) for person in range(8) for shot in range(2)]
    table_folder(tmp_path, rows)
    pd.read_csv(tmp_path / "table.csv", dtype=str).to_parquet(tmp_path / "images.parquet")
    data = {"layout": "table", "table": "images.parquet"}
    write_config(tmp_path, data=data, data_root=".", folds={"k": 2}, answers=None)
    snakemake(tmp_path, "prepare")
    for name in ("notes.txt", "p9_0.jpg", "results/new.jpg", "resources/more/x.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("stray")
    assert planned(tmp_path, "prepare") == {}
    shutil.copy(tmp_path / "p0_0.jpg", tmp_path / "p1_0.jpg")
    assert planned(tmp_path, "prepare") == {"manifest": 1, "folds": 1, "pixels": 1}


def test_the_demo_is_drawn_and_read_with_its_corrections_as_in_the_first_run(tmp_path: Path) -> None:
    write_config(tmp_path, corrections="corrections.csv")
    manifest = "results/data/manifest/split=train/manifest.parquet"
    snakemake(tmp_path, manifest)
    assert pd.read_parquet(tmp_path / manifest)["corrected"].any()
    assert planned(tmp_path, manifest) == {}
