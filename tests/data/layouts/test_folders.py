"""One folder per class: its rows, labels and corrections."""

from foldvote.data.entries import entries
from support.data_folders import class_folders, config_for, put
from support.layouts import FILES, FOLDERS, layout_faults, with_corrections


def test_folders_at_any_depth_are_sorted_and_grouped(tmp_path):
    root = class_folders(tmp_path / "d", FILES)
    put(root / "train/cat/._p1_b.jpg", b"mac")
    (root / "train/empty").mkdir()
    frame, label_space, _, _ = entries(config_for(root, FOLDERS), "train")
    assert label_space.classes == ("cat", "dog", "empty")
    assert frame["image_id"].tolist() == ["cat/deep/er/p2_a.jpg", "cat/p1_b.jpg", "dog/p1_a.jpg"]
    assert frame["path"].tolist() == [f"train/{name}" for name in frame["image_id"]]
    assert frame["group"].tolist() == ["p2", "p1", "p1"] and frame["label"].tolist() == [0, 0, 1]
    test, _, _, _ = entries(config_for(root, FOLDERS), "test")
    assert test["image_id"].tolist() == ["sub/y y.jpg", "z.jpg"] and set(test["label"]) == {-1}
    given, label_space, _, _ = entries(config_for(root, FOLDERS | {"classes": ["empty", "dog", "cat"]}), "train")
    assert label_space.classes == ("empty", "dog", "cat") and given["label"].tolist() == [2, 2, 1]


def test_folders_faults(tmp_path):
    root = class_folders(tmp_path / "d", FILES)
    (told,) = layout_faults(config_for(root, FOLDERS | {"classes": ["cat", "dig"]}))
    assert "did you mean 'dig'?" in told
    told = layout_faults(config_for(root, FOLDERS | {"group_pattern": "q(.)"}))
    assert len(told) == 3 and "p1_b.jpg" in told[1]
    assert "parentheses" in layout_faults(config_for(root, FOLDERS | {"group_pattern": "p."}))[0]
    assert "no regular expression" in layout_faults(config_for(root, FOLDERS | {"group_pattern": "("}))[0]
    assert "no such folder" in layout_faults(config_for(root, FOLDERS | {"train": "nope"}))[0]
    assert "`..`" in layout_faults(config_for(root, FOLDERS | {"train": "../d/train"}))[0]
    put(root / "train/loose.jpg", b"x")
    assert "loose.jpg" in layout_faults(config_for(root, FOLDERS))[0]
    assert "no test images" in layout_faults(config_for(root, FOLDERS | {"test": None}), "test")[0]
    assert "data_root" in layout_faults(config_for(tmp_path / "none", FOLDERS))[0]


def test_f16_a_symlinked_folder_is_no_silent_gap_and_no_loop(tmp_path):
    root = class_folders(tmp_path / "d", FILES)
    (root / "train/cat/p3_loop").symlink_to("..")
    frame, _, _, _ = entries(config_for(root, FOLDERS), "train")
    assert "cat/p3_loop" in set(frame["image_id"])
    assert len(frame) == 4


def test_corrections_of_class_folders(tmp_path):
    root = class_folders(tmp_path / "f", FILES)
    frame, _, _, _ = entries(
        with_corrections(root, [("dog/p1_a.jpg", "label", "dog", "cat", "certain")], FOLDERS), "train"
    )
    assert frame["class_name"].tolist() == ["cat"] * 3 and frame["corrected"].tolist() == [False, False, True]


def test_a_correction_to_no_class_folder_is_refused_and_to_an_empty_one_is_not(tmp_path):
    root = class_folders(tmp_path / "f", FILES)
    (root / "train/cow").mkdir()
    (told,) = layout_faults(with_corrections(root, [("dog/p1_a.jpg", "label", "dog", "cta", "certain")], FOLDERS))
    assert told.endswith("to is 'cta', which is not known; did you mean 'cat'?")
    config = with_corrections(root, [("dog/p1_a.jpg", "label", "dog", "cow", "certain")], FOLDERS)
    assert entries(config, "train").frame["class_name"].tolist()[-1] == "cow"


def test_one_class_in_two_unicode_forms_is_one_class(tmp_path):
    files = ["train/mo\u0308we/p1_a.jpg", "train/m\u00f6we/p2_a.jpg", "train/cat/p3_a.jpg"]
    root = class_folders(tmp_path / "f", files)
    for classes in (None, ["cat", "m\u00f6we"]):
        found = entries(config_for(root, FOLDERS | {"test": None, "classes": classes}), "train")
        assert found.label_space.classes == ("cat", "m\u00f6we")
        assert found.frame["label"].value_counts().to_dict() == {0: 1, 1: 2}
        assert found.spellings == {"class": {"m\u00f6we": ["mo\u0308we", "m\u00f6we"]}}
