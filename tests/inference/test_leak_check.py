"""The leak check finds a leak that was put there, and none in drawn features without one."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from foldvote.config.data import DemoLayout
from foldvote.data.manifest_table import ONLY
from foldvote.inference.feature_files import feature_writer
from foldvote.inference.leak_check import (
    LeakInputs,
    Rows,
    check_leaks,
    score_apart,
    score_drawn_labels,
    score_splits,
    told,
)
from foldvote.io.files import read_json
from foldvote.io.parquet import read_record
from foldvote.runtime.seeding import generator
from foldvote.splits.folds import SplitFiles
from support.splits import Split, persons
from support.tiny_member import manifest_row, write_manifest

GROUPS, SHOTS, WIDTH = 60, 5, 24


def drawn(leak: float, site: float = 0.0, seed: int = 0) -> tuple[Rows, np.ndarray]:
    """Images of three classes; a group's images share `leak` of their own direction, a site's `site` of its own.

    The class is that of the group, so that knowing the group is knowing the class. Sites have classes of their own
    share where `site` is above 0.
    """
    draw = np.random.default_rng(seed)
    of_group = np.arange(GROUPS) % 3
    of_site = (
        np.where(draw.random(GROUPS) < 0.8, of_group, draw.integers(0, 3, GROUPS))
        if site
        else np.arange(GROUPS) // 3 % 4
    )
    group = np.repeat(np.arange(GROUPS), SHOTS)
    signal = np.zeros((3, WIDTH))
    signal[:, :3] = 0.8 * np.eye(3)
    features = signal[of_group][group] + draw.normal(size=(GROUPS * SHOTS, WIDTH))
    features += leak * draw.normal(size=(GROUPS, WIDTH))[group] + site * draw.normal(size=(4, WIDTH))[of_site][group]
    rows = Rows(features.astype(np.float32), of_group[group], np.char.add("g", group.astype(str)), 3, 1)
    return rows, np.char.add("site", of_site[group].astype(str))


def test_a_planted_leak_flatters_the_split_by_image() -> None:
    rows, site = drawn(leak=3.0)
    found = score_splits(rows, {"site": site}, 0.03)
    assert found["image"]["difference_low"] > 0.1
    gap = found["image"]["macro_f1"] - found["group"]["macro_f1"]
    assert found["image"]["difference"] == pytest.approx(gap)
    lines = [finding.text for finding in told(found, {}, None)]
    assert f"splitting by image would flatter you by {gap:.3f} (" in lines[1]
    assert (
        found["group"]["units"] == GROUPS and found["image"]["units"] == GROUPS * SHOTS and found["site"]["parts"] == 4
    )


def test_without_a_leak_none_is_told() -> None:
    for seed in range(3):
        rows, site = drawn(leak=0.0, seed=seed)
        found = score_splits(rows, {"site": site}, 0.3)
        assert abs(found["image"]["difference"]) < 0.08
        assert "makes no difference" in told(found, {}, None)[1].text


def test_a_site_that_goes_with_the_class_costs_when_it_is_held_out() -> None:
    rows, site = drawn(leak=0.0, site=2.0)
    found = score_splits(rows, {"site": site}, 0.03)
    assert found["site"]["difference_high"] < 0
    finding = told(found, {}, None)[2]
    assert "holding out whole values of site costs" in finding.text and finding.level == "warning"


def test_a_column_of_one_value_cannot_be_held_out() -> None:
    rows, _ = drawn(leak=0.0)
    found = score_splits(rows, {"site": np.full(len(rows.labels), "one")}, 0.3)
    assert "site cannot be held out" in told(found, {}, None)[2].text


def test_drawn_labels_are_chance_even_where_groups_leak() -> None:
    rows, _ = drawn(leak=3.0)
    found = score_drawn_labels(rows, 0.3)
    assert found["low"] <= found["chance"] <= found["high"] or found["macro_f1"] < found["chance"]
    assert 0.25 < found["chance"] < 0.4


def test_train_and_test_are_told_apart_only_where_they_differ() -> None:
    draw = np.random.default_rng(2)
    groups = np.char.add("g", np.repeat(np.arange(80), 4).astype(str))
    own = np.repeat(draw.normal(size=(80, WIDTH)), 4, axis=0) + draw.normal(size=(320, WIDTH))
    alike = score_apart(own[:160], own[160:], groups, 0.3, 0)
    assert alike["low"] < 0.5 < alike["high"]
    other = score_apart(own[:160], own[160:] + 0.7, groups, 0.3, 0)
    assert other["low"] > 0.8


def leaks(folder: Path, externals: int) -> dict[str, Any]:
    """What the check finds in a folder with so many images of strangers, which look like no other."""
    folder.mkdir()
    rows = [row | {ONLY: False} for row in persons([0, 1, 2] * 6)]
    far = [
        manifest_row(f"e/{number}.png", f"stranger{number}", number % 3, f"e{number}") for number in range(externals)
    ]
    split = Split(folder, rows + [row | {ONLY: True} for row in far], k=3)
    tests = pd.DataFrame(rows[:24]).drop(columns=ONLY).assign(label=np.int16(-1), class_name=None)
    tests["image_id"] = [f"test{number}" for number in range(len(tests))]
    write_manifest(tests, folder / "test.parquet")
    files = {}
    for name, ids in (("train", [*(row["image_id"] for row in rows)]), ("test", tests["image_id"].tolist())):
        draw, files[name] = generator(0, name), folder / f"{name}_features.parquet"
        manifest = split.manifest if name == "train" else folder / "test.parquet"
        record = dict.fromkeys(("net", "pretrained_sha256", "size", "roi"), "x") | {"views": ["identity"]}
        record["data_sha256"] = read_record(manifest)["data_sha256"]
        with feature_writer(files[name], ["identity"], 8, record) as write:
            write(ids, {"identity": draw.normal(size=(len(ids), 8)).astype(np.float32)})
            if name == "train" and far:
                shifted = draw.normal(size=(externals, 8)).astype(np.float32) + 9
                write([str(row["image_id"]) for row in far], {"identity": shifted})
    files_of_split = SplitFiles(split.classes, split.folds, split.certificate)
    inputs = LeakInputs(files["train"], split.manifest, files["test"], folder / "test.parquet", files_of_split)
    check_leaks(inputs, DemoLayout(layout="demo"), [], 1, folder / "leaks.json")
    return read_json(folder / "leaks.json")


def test_images_that_are_only_trained_on_are_in_no_score(tmp_path: Path) -> None:
    plain, found = leaks(tmp_path / "plain", 0), leaks(tmp_path / "external", 30)
    assert (found["images"], found["groups"]) == (54, 18) and "auc" in found["train_against_test"]
    assert found == plain | {"data_sha256": found["data_sha256"]}


def test_the_luck_of_a_deal_is_no_leak() -> None:
    """Groups that are drawn for each image alike say nothing, and images dealt alone score the same but for luck."""
    told_of = []
    for seed in range(12):
        draw = np.random.default_rng(seed)
        labels = draw.choice(8, 160, p=[0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
        features = (0.7 * np.eye(8, WIDTH)[labels] + draw.normal(size=(160, WIDTH))).astype(np.float32)
        groups = np.char.add("g", draw.permutation(np.arange(160) // 5).astype(str))
        found = score_splits(Rows(features, labels, groups, 8, seed), {}, 0.3)["image"]
        told_of.append(found["difference_low"] > 0 or found["difference_high"] < 0)
    assert sum(told_of) <= 1
