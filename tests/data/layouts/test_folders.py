"""One folder per class: its rows, labels and corrections."""

import pandas as pd
import pytest

from foldvote.data.entries import entries
from foldvote.data.file_listing import listing_digest, passed_over
from support.data_folders import class_folders, config_for, put
from support.layouts import FILES, FOLDERS, layout_faults, with_corrections


def test_folders_at_any_depth_are_sorted_and_grouped(tmp_path):
    root = class_folders(tmp_path / "d", FILES)
    put(root / "train/cat/._p1_b.jpg", b"mac")
    frame, label_space, _, _ = entries(config_for(root, FOLDERS), "train")
    assert label_space.classes == ("cat", "dog")
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
    assert "loose.jpg: an image beside the class folders; move it" in layout_faults(config_for(root, FOLDERS))[0]
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
    listed = FOLDERS | {"classes": ["cat", "dog", "cow"]}
    (told,) = layout_faults(with_corrections(root, [("dog/p1_a.jpg", "label", "dog", "cta", "certain")], listed))
    assert told.endswith("to is 'cta', which is not known; did you mean 'cat'?")
    config = with_corrections(root, [("dog/p1_a.jpg", "label", "dog", "cow", "certain")], listed)
    assert entries(config, "train").frame["class_name"].tolist()[-1] == "cow"


def test_one_class_in_two_unicode_forms_is_one_class(tmp_path):
    files = ["train/mo\u0308we/p1_a.jpg", "train/m\u00f6we/p2_a.jpg", "train/cat/p3_a.jpg"]
    root = class_folders(tmp_path / "f", files)
    for classes in (None, ["cat", "m\u00f6we"]):
        found = entries(config_for(root, FOLDERS | {"test": None, "classes": classes}), "train")
        assert found.label_space.classes == ("cat", "m\u00f6we")
        assert found.frame["label"].value_counts().to_dict() == {0: 1, 1: 2}
        assert found.spellings == {"class": {"m\u00f6we": ["mo\u0308we", "m\u00f6we"]}}


JUNK = [
    "train/__MACOSX/._b.jpg",
    "train/lost+found/x.jpg",
    "train/cat/@eaDir/p1_b.jpg/SYNOPHOTO_THUMB_M.jpg",
    "train/cat/.ipynb_checkpoints/p1_b-checkpoint.jpg",
    "train/cat/._p1_b.jpg",
    "train/dog/.DS_Store",
    "train/dog/thumbs.db",
    "train/README.md",
    "train/labels.csv",
    "train/train.zip",
    "train/dog/notes.txt",
    "test/@eaDir/z.jpg",
    "test/sample.csv",
]


def test_what_systems_and_people_leave_in_folders_is_ignored_and_counted(tmp_path):
    root = class_folders(tmp_path / "d", FILES)
    config = config_for(root, FOLDERS)
    clean = {split: entries(config, split) for split in ("train", "test")}
    before = [listing_digest(config, split) for split in ("train", "test")]
    assert passed_over(config, "train") == passed_over(config, "test") == {}
    class_folders(root, [path for path in JUNK if path.endswith(".jpg")])
    for path in JUNK:
        put(root / path, b"x")
    for split, (frame, label_space, _, _) in clean.items():
        again = entries(config, split)
        pd.testing.assert_frame_equal(again.frame, frame)
        assert again.label_space == label_space
    assert [listing_digest(config, split) for split in ("train", "test")] == before
    counted = (
        "*.txt .DS_Store ._* .ipynb_checkpoints @eaDir README.md __MACOSX labels.csv lost+found thumbs.db train.zip"
    )
    assert passed_over(config, "train") == dict.fromkeys(counted.split(), 1)
    assert passed_over(config, "test") == {"*.csv": 1, "@eaDir": 1}


def test_class_folders_beside_test_results_and_weights_are_the_only_classes(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "d", ["owl/p1_a.jpg", "owl/p2_a.jpg", "wren/p3_a.jpg", "test/z.jpg", "test/y.jpg"])
    put(root / "out/data/x.jpg", b"made")
    put(root / "resources/weights/w.safetensors", b"made")
    monkeypatch.chdir(root)
    config = config_for(root, FOLDERS | {"train": ".", "test": "test/"}, results="out")
    frame, label_space, _, _ = entries(config, "train")
    assert label_space.classes == ("owl", "wren") and len(frame) == 3
    assert frame["path"].tolist() == ["owl/p1_a.jpg", "owl/p2_a.jpg", "wren/p3_a.jpg"]
    assert passed_over(config, "train") == {"out/": 1, "resources/weights/": 1, "test/": 1}
    assert entries(config, "test").frame["image_id"].tolist() == ["y.jpg", "z.jpg"]
    before = listing_digest(config, "train")
    put(root / "test/new.jpg", b"1")
    put(root / "out/report/y.jpg", b"1")
    assert listing_digest(config, "train") == before

    (root / "all").symlink_to("test")  # a link to the test folder is the test folder
    assert entries(config, "train").label_space.classes == ("owl", "wren")


def test_the_folders_of_train_and_test_may_lie_in_one_another(tmp_path):
    names = ["owl/p1_a.jpg", "owl/later/p9_q.jpg", "wren/p3_a.jpg", "later/images/q.jpg"]
    root = class_folders(tmp_path / "d", names)
    below = config_for(root, FOLDERS | {"train": ".", "test": "later/images"})
    assert entries(below, "train").label_space.classes == ("owl", "wren")
    assert passed_over(below, "train") == {"later/images/": 1}
    inside = config_for(root, FOLDERS | {"train": ".", "test": "owl/later", "group_pattern": "(.)"})
    assert "owl/later/p9_q.jpg" not in set(entries(inside, "train").frame["image_id"])
    assert entries(inside, "test").frame["image_id"].tolist() == ["p9_q.jpg"]
    (root / "later/images").rename(root / "x")
    outer = config_for(class_folders(root, ["t/a/p1.jpg", "t/b/p2.jpg"]), FOLDERS | {"train": "t", "test": "."})
    assert set(entries(outer, "test").frame["image_id"]) == {*names[:3], "x/q.jpg"}


def test_an_empty_class_folder_is_refused_by_name_and_each_remedy_works(tmp_path):
    root = class_folders(tmp_path / "d", FILES)
    put(root / "train/emu/@eaDir/a.jpg", b"x")
    (told,) = layout_faults(config_for(root, FOLDERS))
    assert told.startswith(f"{root}/train/emu: a class folder without images; fill it or delete it, or list all")
    assert entries(config_for(root, FOLDERS | {"classes": ["cat", "dog"]}), "train").label_space.classes == (
        "cat",
        "dog",
    )
    kept = entries(config_for(root, FOLDERS | {"classes": ["cat", "emu", "dog"]}), "train").label_space.classes
    assert kept == ("cat", "emu", "dog")
    put(root / "train/emu/p3_a.jpg", b"x")
    assert entries(config_for(root, FOLDERS), "train").label_space.classes == ("cat", "dog", "emu")


def test_class_folders_in_the_root_are_proposed_and_the_proposal_works(tmp_path):
    root = class_folders(tmp_path / "d", ["owl/p1_a.jpg", "wren/p2_a.jpg", "test/z.jpg", "__MACOSX/x.jpg"])
    (told,) = layout_faults(config_for(root, FOLDERS))
    assert (
        told == f"{root}/train: no such folder; if the folders owl, wren in {root} are the classes, set data.train: ."
    )
    assert len(entries(config_for(root, FOLDERS | {"train": "."}), "train").frame) == 2
    one = class_folders(tmp_path / "one", ["photos/owl/p1_a.jpg", "test/z.jpg"])
    (told,) = layout_faults(config_for(one, FOLDERS))
    assert told.endswith("no such folder; set data.train to the folder that holds one folder per class")
    (told,) = layout_faults(config_for(root, FOLDERS | {"train": ".", "test": "tset"}))
    assert told == f"{root}/tset: no such folder; set data.test to the folder of the images to predict, or to null"


@pytest.mark.parametrize(
    ("data", "results", "told"),
    [
        ({"train": "train", "test": "train/."}, "results", "data.test: {}/train is data.train as well; name"),
        ({"train": ".", "test": None}, "d", "data.train: {} is where the results are written; set another `results`"),
        ({"train": "train"}, "d", "data.train: {}/train is where the results are written; set another `results`"),
        ({"train": "train"}, "d/train", "data.train: {}/train is where the results are written"),
    ],
)
def test_folders_that_are_one_are_refused(tmp_path, data, results, told):
    root = class_folders(tmp_path / "d", FILES)
    faults = layout_faults(config_for(root, FOLDERS | data, results=str(tmp_path / results)))
    assert faults[0].startswith(told.format(root))
