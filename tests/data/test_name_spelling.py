"""Groups, classes and ids that a reader takes for one."""

import pytest

from foldvote.data.entries import entries
from support.data_folders import config_for, table_folder
from support.layouts import TABLE, layout_faults, with_corrections

ROWS = [
    ("a.jpg", "p00", "owl"),
    ("b.jpg", "p00 ", "owl "),
    ("c.jpg", "p00\u00a0", "owl"),
    ("d.jpg", "p01", "wren"),
]
TYPED = [*ROWS, ("e.jpg", "P00", "wren")]


def test_names_with_spaces_around_are_one_and_are_told(tmp_path):
    found = entries(config_for(table_folder(tmp_path / "d", ROWS), TABLE), "train")
    assert found.frame["group"].tolist() == found.frame["profile"].tolist() == ["p00"] * 3 + ["p01"]
    assert found.label_space.classes == ("owl", "wren")
    assert found.spellings == {
        "group": {"p00": ["p00", "p00 ", "p00\u00a0"]},
        "class": {"owl": ["owl", "owl "]},
    }
    plain = [("a.jpg", "p0", "x"), ("b.jpg", "p1", "y")]
    assert entries(config_for(table_folder(tmp_path / "e", plain), TABLE), "train").spellings == {}


@pytest.mark.parametrize("other", ["P00", "p\u200b00", "\uff50\uff10\uff10", "\u044000"])
def test_groups_that_look_the_same_are_refused_joined_or_kept(tmp_path, other):
    root = table_folder(tmp_path / "d", [*ROWS, ("e.jpg", other, "wren")])
    (told,) = layout_faults(config_for(root, TABLE))
    assert "'p00' (3 images)" in told and "(1 images)" in told and "data.similar_groups: join" in told
    joined = entries(config_for(root, TABLE | {"similar_groups": "join"}), "train")
    assert joined.frame["group"].tolist() == joined.frame["profile"].tolist() == ["p00"] * 3 + ["p01", "p00"]
    assert joined.spellings["group"]["p00"] == sorted(["p00", "p00 ", "p00\u00a0", other])
    kept = entries(config_for(root, TABLE | {"similar_groups": "keep"}), "train")
    assert kept.frame["group"].tolist()[-1] == other


def test_groups_of_test_images_may_look_the_same(tmp_path):
    rows = [("a.jpg", "p0", "x", "train"), ("b.jpg", "p1", "y", "train"), ("c.jpg", "q", "", "test")]
    rows += [("d.jpg", "Q ", "", "test")]
    root = table_folder(tmp_path / "d", rows, ("path", "group", "label", "split"))
    assert entries(config_for(root, TABLE | {"split": "split"}), "test").frame["group"].tolist() == ["q", "Q"]


def test_classes_that_look_the_same_are_refused_unless_corrected_or_listed(tmp_path):
    root = table_folder(tmp_path / "d", [*ROWS, ("e.jpg", "p02", "Owl")])
    (told,) = layout_faults(config_for(root, TABLE))
    assert "the classes 'Owl' and 'owl' look the same" in told and "data.classes" in told
    config = with_corrections(root, [("e.jpg", "label", "Owl", "owl", "certain")], TABLE)
    assert entries(config, "train").label_space.classes == ("owl", "wren")
    listed = entries(config_for(root, TABLE | {"classes": ["owl", "Owl", "wren"]}), "train")
    assert listed.frame["label"].tolist() == [0, 0, 0, 2, 1]


def test_ids_may_differ_in_case_and_not_in_spelling_only(tmp_path):
    rows = [("a.jpg", "p0", "x", "-Kz"), ("b.jpg", "p1", "y", "-kz")]
    header = ("path", "group", "label", "name")
    found = entries(config_for(table_folder(tmp_path / "d", rows, header), TABLE | {"id": "name"}), "train")
    assert found.frame["image_id"].tolist() == ["-Kz", "-kz"]
    rows = [("a.jpg", "p0", "x", "jos\u00e9"), ("b.jpg", "p1", "y", "jose\u0301 ")]
    (told,) = layout_faults(config_for(table_folder(tmp_path / "e", rows, header), TABLE | {"id": "name"}))
    assert "row 3" in told and "row 2 already" in told
