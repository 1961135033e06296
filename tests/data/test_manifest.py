"""The manifest and the quarantine: complete, checked, and not dependent on the number of workers."""

import os
from functools import partial

import pytest

from foldvote.data import manifest
from foldvote.data.image_inspection import perceptual_hash
from foldvote.data.label_space import label_space_from_json
from foldvote.data.layouts.registry import layout_of
from foldvote.data.manifest import build_manifest, data_digest
from foldvote.data.manifest_table import QUARANTINE, manifest_schema
from foldvote.errors import UserError
from foldvote.io.files import read_json, sha256_bytes
from foldvote.io.parquet import read_record, read_table
from foldvote.runtime.parallel_map import map_processes
from foldvote.splits.folds import make_folds
from support.data_folders import SHOTS, class_folders, config_for, encoded, maskbase_folder, picture, put, table_folder


def built(config, tmp_path, split="train", workers=1):
    manifest, quarantine = tmp_path / f"m/{split}.parquet", tmp_path / f"q/{split}.parquet"
    build_manifest(config, split, manifest, quarantine, workers)
    schema = manifest_schema(config.data.factor_names, layout_of(config.data).raw_columns)
    return read_table(manifest, schema, key=("image_id",)), read_table(quarantine, QUARANTINE), read_record(manifest)


def quarantine(root, **rules):
    return config_for(root, images={"on_bad": "quarantine"} | rules)


def test_the_manifest_of_the_home_task(tmp_path, capsys):
    root = maskbase_folder(tmp_path / "d")
    put(root / "train/images/000002_male_Asian_45/mask3.jpg", encoded(picture(60, 50), "PNG"))
    frame, bad, record = built(config_for(root), tmp_path)
    assert bad.empty and len(frame) == 28
    row = frame.set_index("image_id").loc["000002_male_Asian_45/mask3.jpg"]
    data = (root / row["path"]).read_bytes()
    assert (row["width"], row["height"], row["format"], row["flags"]) == (50, 60, "PNG", "extension")
    assert (row["bytes"], row["sha256"], row["phash"]) == (
        len(data),
        sha256_bytes(data),
        perceptual_hash(picture(60, 50)),
    )
    assert len(row["phash"]) == 16 and row["label"] == 1 and row["class_name"] == "wear-male-30to59"
    assert len(label_space_from_json(record.pop("scheme")).classes) == 18
    assert record == {"data_sha256": data_digest(frame), "corrections": {}, "split": "train"}
    told = capsys.readouterr().err
    assert "1 train images are flagged extension" in told and "class wear-male-under30 has no training image" in told


def test_the_manifest_of_test_images_has_no_labels(tmp_path):
    frame, bad, record = built(config_for(maskbase_folder(tmp_path / "d")), tmp_path, "test")
    assert bad.empty and set(frame["label"]) == {-1} and record["split"] == "test"
    assert frame["image_id"].tolist() == [f"{number:040x}.jpg" for number in (3, 2, 1)]


def test_f48_workers_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "map_processes", partial(map_processes, worth=1))
    root = maskbase_folder(tmp_path / "d")
    put(root / "train/images/000002_male_Asian_45/mask3.jpg", b"")
    alone, bad_alone, record = built(quarantine(root), tmp_path / "one")
    several, bad_several, again = built(quarantine(root), tmp_path / "two", workers=2)
    assert alone.equals(several) and bad_alone.equals(bad_several) and record == again
    first, second = (tmp_path / name / "m/train.parquet" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_the_digest_changes_with_any_pixel_label_or_group(tmp_path):
    root = table_folder(tmp_path / "d", [("a.jpg", "g", "x"), ("b.jpg", "h", "y")])
    config = config_for(root, {"layout": "table", "table": "table.csv"})
    digests = {built(config, tmp_path)[2]["data_sha256"]}
    table = (root / "table.csv").read_text()
    for changed in (table.replace(",x", ",z"), table.replace(",h,", ",g,"), table.replace("\nb", "\n./b")):
        put(root / "table.csv", changed)
        digests.add(built(config, tmp_path)[2]["data_sha256"])
    put(root / "table.csv", table)
    put(root / "b.jpg", encoded(picture(seed=77)))
    digests.add(built(config, tmp_path)[2]["data_sha256"])
    assert len(digests) == 5


def spoil(root) -> dict[str, str]:
    """Put faults F01, F02, F03, F05, F11, F13 and F16 among a person's images. Returns the reasons by path."""
    folder = "train/images/000001_female_Asian_27"
    whole = encoded(picture(64, 64, 5))
    crc = bytearray(encoded(picture(), "PNG"))
    crc[-1] ^= 1
    contents = {
        "mask1": (b"", "empty"),
        "mask2": (whole[: len(whole) // 2], "truncated"),
        "mask3": (whole[:-2], "truncated"),
        "mask4": (b"<html>", "not_an_image"),
        "mask5": (bytes(crc), "damaged"),
        "incorrect_mask": (encoded(picture(8, 8), "PNG"), "too_small"),
    }
    for shot, (content, _) in contents.items():
        put(root / f"{folder}/{shot}.jpg", content)
    pipe = root / f"{folder}/normal.jpg"
    pipe.unlink()
    os.mkfifo(pipe)
    return {f"{folder}/{shot}.jpg": reason for shot, (_, reason) in contents.items()} | {
        f"{folder}/normal.jpg": "unreadable"
    }


def test_f01_bad_images_stop_the_stage_by_default_and_nothing_is_written(tmp_path):
    root = maskbase_folder(tmp_path / "d")
    reasons = spoil(root)
    with pytest.raises(UserError) as caught:
        built(config_for(root), tmp_path)
    told = caught.value.faults
    assert len(told) == 8
    for path, line in zip(reasons, told[:-1], strict=True):
        assert line.startswith(f"{root / path}: {reasons[path]}: ")
    assert "7 of 28 train images are bad" in told[-1] and "images.on_bad: quarantine" in told[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_f01_bad_images_are_left_out_and_listed_under_quarantine(tmp_path, capsys):
    root = maskbase_folder(tmp_path / "d")
    reasons = spoil(root)
    frame, bad, _ = built(quarantine(root), tmp_path)
    assert len(frame) == 21 and not set(frame["path"]) & set(reasons)
    assert dict(zip(bad["path"], bad["reason"], strict=True)) == reasons
    assert bad["message"].str.len().min() > 10
    told = capsys.readouterr().err
    assert "7 of 28 train images are left out (2 truncated, " in told and "q/train.parquet" in told


def test_f01_a_test_image_left_out_is_said_to_be_missing_in_the_submission(tmp_path, capsys):
    root = maskbase_folder(tmp_path / "d")
    put(root / f"eval/images/{2:040x}.jpg", b"")
    with pytest.raises(UserError, match="missing in the submission"):
        built(config_for(root), tmp_path, "test")
    frame, bad, _ = built(quarantine(root), tmp_path, "test")
    assert len(frame) == 2 and len(bad) == 1
    assert "missing in the submission" in capsys.readouterr().err


def test_only_twenty_bad_images_are_listed(tmp_path):
    root = class_folders(tmp_path / "d", [f"train/{name}/{n:02}.jpg" for name in ("a", "b") for n in range(13)])
    for path in root.rglob("*.jpg"):
        put(path, b"")
    config = config_for(root, {"layout": "folders", "group_pattern": "(.*)"}, images={"on_bad": "quarantine"})
    with pytest.raises(UserError) as caught:
        built(config, tmp_path)
    assert len(caught.value.faults) == 22
    assert caught.value.faults[20] == "... and 6 more"
    assert "no image is left" in caught.value.faults[21]


def test_f16_a_symlinked_folder_of_pictures_is_told(tmp_path):
    root = class_folders(tmp_path / "d", ["train/a/1.jpg", "train/b/2.jpg"])
    (root / "train/a/more").symlink_to(root / "train/b")
    config = config_for(root, {"layout": "folders", "group_pattern": "(.*)"})
    with pytest.raises(UserError, match="train/a/more: unreadable: is not a plain file"):
        built(config, tmp_path)


def test_f53_unicode_folders_and_another_working_directory(tmp_path, monkeypatch):
    root = maskbase_folder(tmp_path / "데이터 폴더", [("000001", "female", "Asian", 27)])
    monkeypatch.chdir(tmp_path)
    config = config_for(root.relative_to(tmp_path))
    frame, _, _ = built(config, tmp_path / "결과")
    assert frame["image_id"].tolist() == [f"000001_female_Asian_27/{shot}.jpg" for shot in SHOTS]


def test_corrections_are_in_the_record(tmp_path):
    root = maskbase_folder(tmp_path / "d")
    put(root / "fixes.csv", "id,field,from,to,source,certainty\n000001,gender,female,male,forum,certain\n")
    plain = built(config_for(root), tmp_path)[2]
    frame, _, record = built(config_for(root, corrections="fixes.csv"), tmp_path)
    assert record["corrections"]["applied"][0]["source"] == "forum"
    assert record["data_sha256"] != plain["data_sha256"]
    assert frame["corrected"].sum() == 7


def test_a_placeholder_in_every_group_is_named_and_leaving_it_out_works(tmp_path, capsys):
    rows = [(f"p{person}_{shot}.png", f"p{person}", "xy"[person % 2]) for person in range(8) for shot in range(3)]
    root = table_folder(tmp_path / "d", rows)
    for person in range(8):
        put(root / f"p{person}_2.png", encoded(picture(seed=999), "PNG"))
    values = {"folds": {"k": 2}, "results": str(tmp_path / "results")}
    data = {"layout": "table", "table": "table.csv"}

    def prepared(**more):
        config = config_for(root, data, **values, **more)
        frame, bad, _ = built(config, tmp_path)
        paths = (tmp_path / name for name in ("folds.parquet", "certificate.json", "classes.json"))
        make_folds(tmp_path / "m/train.parquet", config.folds, 7, *paths)
        return frame, bad

    with pytest.raises(UserError) as refused:
        prepared()
    assert refused.value.faults == (
        "folds: all images are of one group, which is never parted, since equal files join groups; "
        "leave these files out:",
        "folds: p0_2.png, p1_2.png and 6 more are one file, so that the groups p0, p1, p2 and 5 more count as one; "
        "if it shows none of them, leave all copies out: leave_out: ['p0_2.png']",
    )
    frame, bad = prepared(leave_out=["p0_2.png"])
    assert len(frame) == 16 and not frame["image_id"].str.endswith("_2.png").any()
    assert bad["path"].tolist() == [f"p{person}_2.png" for person in range(8)] and set(bad["reason"]) == {"left_out"}
    assert read_json(tmp_path / "certificate.json")["merged_groups"] == []
    assert "8 of 24 train images are left out, as leave_out says" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"^leave_out: there is no training image 'p0_3.png'; did you mean 'p0_"):
        prepared(leave_out=["p0_3.png"])
    with pytest.raises(UserError, match="no image is left"):
        prepared(leave_out=[row[0] for row in rows])


def test_leaving_out_training_images_leaves_test_images_and_their_manifest_alone(tmp_path):
    rows = [("a.png", "g", "x", "train"), ("b.png", "h", "y", "train"), ("c.png", "i", "", "test")]
    root = table_folder(tmp_path / "d", rows, ("path", "group", "label", "part"))
    put(root / "c.png", (root / "a.png").read_bytes())
    data = {"layout": "table", "table": "table.csv", "split": "part"}
    plain, asked = config_for(root, data), config_for(root, data, leave_out=["a.png"])
    assert plain.for_split("test") == asked.for_split("test") and plain.for_split("train") != asked.for_split("train")
    assert built(asked, tmp_path, "test")[0]["image_id"].tolist() == ["c.png"]
    assert built(asked, tmp_path)[0]["image_id"].tolist() == ["b.png"]


def test_ignored_files_are_told_and_kept_in_the_record_where_there_are_any(tmp_path, capsys):
    root = class_folders(tmp_path / "d", ["train/a/p1_x.jpg", "train/b/p2_x.jpg", "train/__MACOSX/._x.jpg"])
    put(root / "train/README.md", "hello")
    put(root / "train/a/.DS_Store", "x")
    put(root / "train/b/.DS_Store", "x")
    frame, _, record = built(config_for(root, {"layout": "folders", "group_pattern": r"(p\d)_"}), tmp_path)
    assert len(frame) == 2 and record["ignored"] == {".DS_Store": 2, "README.md": 1, "__MACOSX": 1}
    told = capsys.readouterr().err
    assert "ignored among the train images: 2 x .DS_Store, README.md, __MACOSX\n" in told
