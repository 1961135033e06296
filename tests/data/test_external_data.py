"""Data from elsewhere as rows of the training manifest: names, classes, groups, weights, and what is refused."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from foldvote.config.experiment import Config
from foldvote.config.folds import Folds
from foldvote.data.entries import entries
from foldvote.data.image_folders import ImageFolders, block_of
from foldvote.data.manifest import build_manifest
from foldvote.data.manifest_table import ONLY, WEIGHT
from foldvote.data.packed_images import PackedImages, pack_images
from foldvote.errors import UserError
from foldvote.io.files import read_json
from foldvote.io.parquet import read_table
from foldvote.splits.folds import fold_rows, make_folds, read_folds
from foldvote.splits.train_only import TRAIN_ONLY
from support.data_folders import class_folders, config_for, encoded, maskbase_folder, picture, put, table_folder
from support.layouts import FOLDERS, TABLE, layout_faults

OWN = [(f"p{person}_{shot}.jpg", f"p{person}", "xy"[person % 2]) for person in range(8) for shot in range(2)]
EVERY_FILE = {"layout": "folders", "train": ".", "group_pattern": r"^(\w+?)_"}


def with_blocks(root: Path, data: dict[str, Any] | None = None, **blocks: dict[str, Any]) -> Config:
    """A configuration of the data folder `root` with blocks, whose folders are named relative to its parent."""
    external = {
        name: {"data": EVERY_FILE} | block | {"data_root": str(root.parent / block.get("data_root", name))}
        for name, block in blocks.items()
    }
    return config_for(root, data or TABLE, external=external, images={"min_side": 8})


def table_and(root: Path, *files: str) -> Path:
    """A data folder with the table OWN, and beside it the folder `web` with pictures. Returns the first."""
    for number, path in enumerate(files):
        put(root.parent / "web" / path, encoded(picture(seed=1000 + number)))
    return table_folder(root, OWN)


def test_the_rows_of_a_block_follow_those_of_the_data_under_its_name(tmp_path: Path) -> None:
    root = table_and(tmp_path / "d", "x/q1_a.jpg", "cat/p3_b.jpg", "dog/q2_c.jpg")
    plain = entries(config_for(root, TABLE), "train")
    block = {"classes": {"cat": "y", "dog": None}, "weight": 0.5}
    found = entries(with_blocks(root, web=block), "train")
    assert found.label_space == plain.label_space
    own, outside = (found.frame[found.frame[ONLY] == only] for only in (False, True))
    pd.testing.assert_frame_equal(own.drop(columns=[ONLY, WEIGHT]), plain.frame)
    assert own[WEIGHT].eq(1).all() and not own[ONLY].any()
    assert outside[["image_id", "path", "profile", "group", "class_name", "label", WEIGHT]].values.tolist() == [
        ["web/cat/p3_b.jpg", "web://cat/p3_b.jpg", "web/p3", "p3", "y", 1, 0.5],
        ["web/x/q1_a.jpg", "web://x/q1_a.jpg", "web/q1", "q1", "x", 0, 0.5],
    ]
    others = entries(with_blocks(root, web=block | {"same_groups": False}), "train").frame
    assert others.loc[others[ONLY], "group"].tolist() == ["web/p3", "web/q1"]
    assert not entries(with_blocks(root, TABLE, web={"classes": {"cat": "y", "dog": "x"}}), "train").frame.get(WEIGHT)


def test_a_block_of_persons_brings_its_ages_and_one_of_whole_classes_has_none(tmp_path: Path) -> None:
    root = maskbase_folder(tmp_path / "d")
    maskbase_folder(tmp_path / "more", [("000002", "male", "Asian", 33), ("000077", "female", "Asian", 61)])
    header = ("path", "group", "label", "w", "part")
    rows = [("a.jpg", "s", "wear-male-60plus", "3", "train"), ("b.jpg", "t", "", "", "test")]
    table_folder(tmp_path / "web", rows, header)
    config = with_blocks(
        root,
        {"layout": "maskbase"},
        more={"data": {"layout": "maskbase"}},
        web={"data": TABLE | {"weight": "w", "split": "part"}, "weight": 0.5},
    )
    frame = entries(config, "train").frame
    counts = block_of(frame["path"]).value_counts().to_dict()
    assert counts == {"": 28, "more": 14, "web": 1} and frame[ONLY].sum() == 15
    assert frame["age_years"].dtype == "Int16" and frame["age_years"].isna().sum() == 1
    last = frame.iloc[-1]
    assert (last["mask"], last["gender"], last["age"], last[WEIGHT]) == ("wear", "male", "60plus", 1.5)
    assert frame[WEIGHT].value_counts().to_dict() == {1.0: 42, 1.5: 1}
    assert {"000002", "000077"} <= set(frame.loc[frame[ONLY], "group"])


def test_columns_of_weights_are_multiplied_by_that_of_the_block_and_stay_in_the_data(tmp_path: Path) -> None:
    rows = [(*row, "2" if number else "") for number, row in enumerate(OWN)]
    root = table_folder(tmp_path / "d", rows, ("path", "group", "label", "w"))
    table_folder(tmp_path / "web", [("a.jpg", "s", "x", "3"), ("b.jpg", "t", "y", "")], ("path", "group", "label", "w"))
    weighted = TABLE | {"weight": "w"}
    frame = entries(with_blocks(root, weighted, web={"data": weighted, "weight": 0.25}), "train").frame
    assert frame[WEIGHT].tolist() == [1.0] + [2.0] * 15 + [0.75, 0.25]


def test_a_factor_of_a_table_in_another_order_is_the_same(tmp_path: Path) -> None:
    factors = {"wear": ["yes", "no"], "sex": ["m", "f"]}
    header = ("path", "group", "wear", "sex")
    rows = [(f"p{n}.jpg", f"p{n}", ("yes", "no")[n % 2], "mf"[n // 2 % 2]) for n in range(4)]
    root = table_folder(tmp_path / "d", rows, header)
    data = TABLE | {"label": None, "factors": factors}
    table_folder(tmp_path / "web", [("a.jpg", "s", "no", "f", "red")], (*header, "hat"))
    theirs = TABLE | {"label": None, "factors": {"sex": ["f", "m"], "hat": ["red", "none"], "wear": ["no", "yes"]}}
    last = entries(with_blocks(root, data, web={"data": theirs}), "train").frame.iloc[-1]
    assert (last["class_name"], last["label"], last["wear"], last["sex"]) == ("no-f", 3, "no", "f")


def test_faults_of_all_blocks_are_told_at_once_with_their_names(tmp_path: Path) -> None:
    root = table_and(tmp_path / "d", "x/q_a.jpg", "cat/q_b.jpg", "loose.jpg")
    (tmp_path / "cats").mkdir()
    class_folders(tmp_path / "cats", ["cat/q_c.jpg", "Dog/q_d.jpg"])
    config = with_blocks(
        root,
        web={},
        gone={},
        cats={"classes": {"cta": "x", "Dog": "z", "cat": None}},
    )
    told = layout_faults(config)
    assert told[0].startswith("external.web: ") and "loose.jpg: an image beside the class folders" in told[0]
    assert "external.gone: data_root: " in told[1] and "gone is no folder" in told[1]
    assert told[2:] == (
        [
            "external.cats: classes.cta: no image here is of this class; did you mean 'cat'?",
            "external.cats: classes.Dog: the data has no class 'z'; use one of x, y",
        ]
    )
    (tmp_path / "web/loose.jpg").unlink()
    (told_class,) = layout_faults(with_blocks(root, web={}))
    assert told_class == (
        "external.web: the data has no class 'cat', which 1 images here are of; say which of its classes (x, y) it is, "
        "or null to leave them out: external.web.classes: {'cat': ...}"
    )
    (none,) = layout_faults(with_blocks(root, web={"classes": {"cat": None, "x": None}}))
    assert none == "external.web: no image is left; correct classes, which leaves out all of them"


def test_groups_that_look_like_those_of_the_data_are_as_configured(tmp_path: Path) -> None:
    root = table_and(tmp_path / "d", "x/P3_a.jpg", "x/new_b.jpg")
    (told,) = layout_faults(with_blocks(root, web={}))
    assert told.startswith("external.web: the group 'P3' looks like 'p3' of the data; write one name, or set")
    for setting, group in (("join", "p3"), ("keep", "P3")):
        frame = entries(with_blocks(root, TABLE | {"similar_groups": setting}, web={}), "train").frame
        assert frame.loc[frame[ONLY], "group"].tolist() == [group, "new"]
    apart = entries(with_blocks(root, web={"same_groups": False}), "train").frame
    assert apart.loc[apart[ONLY], "group"].tolist() == ["web/P3", "web/new"]


def test_an_image_of_the_data_with_the_id_of_an_external_one_is_refused(tmp_path: Path) -> None:
    root = table_and(tmp_path / "d", "x/q_a.jpg")
    table_folder(root, [*OWN, ("web/x/q_a.jpg", "p9", "x")])
    (told,) = layout_faults(with_blocks(root, web={}))
    assert "the image id 'web/x/q_a.jpg' is that of 'web/x/q_a.jpg' and 'web://x/q_a.jpg'; give the block" in told


def test_no_member_learns_from_an_external_picture_of_a_person_or_a_file_that_it_is_scored_on(tmp_path: Path) -> None:
    root = table_and(tmp_path / "d", "x/p4_a.jpg", "y/q1_copy.jpg", "y/q2_b.jpg")
    put(tmp_path / "web/y/q1_copy.jpg", (root / "p5_1.jpg").read_bytes())
    config = with_blocks(root, web={"weight": 0.5})
    manifest = tmp_path / "m.parquet"
    build_manifest(config, "train", manifest, tmp_path / "q.parquet")
    folders = ImageFolders(config.root, config.external_folders("train"))
    pack_images(manifest, folders, config.images, "8x6", "none", tmp_path / "p.arrow", workers=1)
    table, ids = read_table(manifest).set_index("image_id"), ["web/x/p4_a.jpg", "web/y/q1_copy.jpg", "web/y/q2_b.jpg"]
    assert table.index[table[ONLY]].tolist() == ids and len(PackedImages(tmp_path / "p.arrow").rows(ids)) == 3
    folds_path, certificate = tmp_path / "folds.parquet", tmp_path / "certificate.json"
    make_folds(manifest, Folds(k=4), 1, folds_path, certificate, tmp_path / "classes.json")
    folds, _ = read_folds(folds_path, certificate)
    proof = read_json(certificate)["train_only"]
    assert (proof["images"], proof["groups"], proof["shared_groups"]) == (3, 3, 2)
    of_group = folds[folds["fold"] != TRAIN_ONLY].drop_duplicates("group").set_index("group")["fold"]
    for fold in range(4):
        learnt, validated = fold_rows(folds, fold)
        expected = {ids[2]} | {name for name, group in zip(ids, ("p4", "p5"), strict=False) if of_group[group] != fold}
        assert set(learnt["image_id"]) & set(ids) == expected
        assert not set(validated["image_id"]) & set(ids)
        assert learnt.set_index("image_id").loc[sorted(expected), WEIGHT].eq(0.5).all()
        assert proof["kept_out"][fold]["images"] == 3 - len(expected)


def test_a_bad_picture_of_a_block_is_named_where_it_lies_and_can_be_left_out(tmp_path: Path) -> None:
    root = table_and(tmp_path / "d", "x/q1_a.jpg", "x/q2_a.jpg", "y/q3_a.jpg")
    put(tmp_path / "web/x/q1_a.jpg", b"none")
    config = with_blocks(root, web={})
    with pytest.raises(UserError) as told:
        build_manifest(config, "train", tmp_path / "m.parquet", tmp_path / "q.parquet")
    assert f"{tmp_path / 'web/x/q1_a.jpg'}: not_an_image" in str(told.value)
    out = config.model_copy(update={"leave_out": ["web/x/q1_a.jpg", "web/x/q2_a.jpg"]})
    build_manifest(out, "train", tmp_path / "m.parquet", tmp_path / "q.parquet")
    rows = read_table(tmp_path / "m.parquet")
    assert rows.loc[rows[ONLY], "image_id"].tolist() == ["web/y/q3_a.jpg"] and WEIGHT not in rows
    (tmp_path / "web/y/q3_a.jpg").unlink()
    put(tmp_path / "elsewhere.jpg", encoded(picture()))
    (tmp_path / "web/y/q3_a.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    with pytest.raises(UserError, match="symlink out of the data folder"):
        build_manifest(out, "train", tmp_path / "m.parquet", tmp_path / "q.parquet")


def test_images_of_folders_and_of_a_table_may_be_the_block_of_each_other(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "d", ["train/cat/p1_a.jpg", "train/dog/p2_a.jpg"])
    table_folder(tmp_path / "web", [("a.jpg", "s", "cat")])
    config = with_blocks(root, FOLDERS | {"test": None}, web={"data": TABLE})
    assert entries(config, "train").frame["class_name"].tolist() == ["cat", "dog", "cat"]
    assert config.external_tables("train") == [tmp_path / "web/table.csv"] and not config.external_tables("test")
