"""Tables that list images: their rows, labels and corrections."""

import unicodedata

import pandas as pd
import pytest

from foldvote.data.entries import entries
from support.data_folders import (
    config_for,
    put,
    put_csv,
    table_folder,
)
from support.layouts import FACTORS, TABLE, layout_faults, with_corrections


def test_table_rows_with_labels(tmp_path):
    rows = [("x/b.jpg", "007", "cat", "1e5"), ("x//a.jpg", "NA", "dog", "null"), ("y/가 나.jpg", "007", "cat", "007")]
    root = table_folder(tmp_path / "d", rows, ("path", "group", "label", "name"))
    frame, label_space, _, _ = entries(config_for(root, TABLE | {"id": "name"}), "train")
    assert label_space.classes == ("cat", "dog")
    assert frame["image_id"].tolist() == ["1e5", "null", "007"]  # f18
    assert frame["path"].tolist() == ["x/b.jpg", "x/a.jpg", "y/가 나.jpg"]  # f53
    assert frame["group"].tolist() == frame["profile"].tolist() == ["007", "NA", "007"]
    assert frame["label"].tolist() == [0, 1, 0] and frame["label"].dtype == "int16"
    by_path, _, _, _ = entries(config_for(root, TABLE), "train")
    assert by_path["image_id"].tolist() == ["x/b.jpg", "x//a.jpg", "y/가 나.jpg"]


def test_table_rows_with_factors_and_a_split_as_parquet(tmp_path):
    rows = [("a.jpg", "g1", "yes", "f", "train"), ("b.jpg", "g2", "no", "m", "train"), ("c.jpg", "", "?", "", "test")]
    header = ["path", "group", *FACTORS, "split"]
    root = table_folder(tmp_path / "d", rows, header)
    pd.DataFrame(rows, columns=header).to_parquet(root / "t.parquet")
    for name in ("table.csv", "t.parquet"):
        config = config_for(root, TABLE | {"table": name, "label": None, "factors": FACTORS, "split": "split"})
        train, label_space, _, _ = entries(config, "train")
        assert label_space.classes == ("yes-m", "yes-f", "no-m", "no-f")
        assert train["label"].tolist() == [1, 2] and train["class_name"].tolist() == ["yes-f", "no-m"]
        test, _, _, _ = entries(config, "test")
        assert test["label"].tolist() == [-1] and test[["group", "wear", "sex", "class_name"]].isna().all().all()


def test_f21_bad_labels_of_a_table_are_named_by_row(tmp_path):
    rows = [
        ("a.jpg", "g", "cat"),
        ("b.jpg", "g", "dgo"),
        ("c.jpg", "", "dog"),
        ("d.jpg", "g", ""),
        ("e.jpg", "g", "13.0"),
    ]
    root = table_folder(tmp_path / "d", rows)
    told = layout_faults(config_for(root, TABLE))
    assert len(told) == 3
    assert "row 4: group is empty" in told[0]
    assert "row 5: label is empty" in told[1] and "row 6" in told[2] and "fraction" in told[2]
    told = layout_faults(config_for(root, TABLE | {"classes": ["cat", "dog"]}))
    assert "row 3" in told[1] and "did you mean 'dog'?" in told[1]
    assert "row 6: label '13.0' is not known; use one of cat, dog" in told[3]
    put_csv(root / "table.csv", ["path", "group", "label", "row"], [("a.jpg", "g", "cat", "x")])
    (told,) = layout_faults(config_for(root, TABLE))
    assert "at least two" in told


def test_f19_f20_faults_of_a_table(tmp_path):
    root = table_folder(tmp_path / "d", [("a.jpg", "g", "x"), ("./a.jpg", "g", "y"), ("b.jpg", "g", "y")])
    (root / "b.jpg").unlink()
    told = layout_faults(config_for(root, TABLE))
    assert "row 4" in told[0] and "no file 'b.jpg'" in told[0]
    assert "row 3" in told[1] and "row 2 already" in told[1]
    told = layout_faults(config_for(root, TABLE | {"group": "groop"}))[0]
    assert "did you mean 'group'?" in told
    (told,) = layout_faults(config_for(root, TABLE | {"split": "label"}))[:1]
    assert "row 2: label is 'x'; write train or test" in told
    put(root / "table.csv", "path,group,label\n")
    assert "no rows" in layout_faults(config_for(root, TABLE))[0]


def test_columns_that_are_missing_hide_no_image_that_is_missing(tmp_path):
    root = table_folder(tmp_path / "d", [("a.jpg", "g", "x"), ("b.jpg", "g", "y")])
    (root / "b.jpg").unlink()
    told = layout_faults(config_for(root, TABLE | {"group": "person", "label": "species"}))
    assert ["'person'" in told[0], "'species'" in told[1], "no file 'b.jpg'" in told[2]] == [True] * 3
    assert len(layout_faults(config_for(root, TABLE | {"path": "file"}))) == 1


def test_labels_that_are_numbers_get_codes_by_value(tmp_path):
    root = table_folder(tmp_path / "d", [("a.jpg", "g", "10"), ("b.jpg", "h", "9"), ("c.jpg", "i", "-1")])
    frame, label_space, _, _ = entries(config_for(root, TABLE), "train")
    assert label_space.classes == ("-1", "9", "10") and frame["label"].tolist() == [2, 1, 0]


def test_f17_paths_out_of_the_data_folder_are_refused(tmp_path):
    table = table_folder(tmp_path / "t", [("../a.jpg", "g", "x"), ("/a.jpg", "g", "y"), ("C:\\a.jpg", "g", "x")])
    told = layout_faults(config_for(table, TABLE))
    assert ["`..`" in told[0], "absolute" in told[1], "absolute" in told[2]] == [True] * 3


def test_corrections_of_labels_and_of_factors(tmp_path):
    root = table_folder(
        tmp_path / "t",
        [("a.jpg", "g1", "cat"), ("b.jpg", "g1", "cat"), ("c.jpg", "g2", "dgo"), ("d.jpg", "g3", "dog")],
    )
    rows = [("c.jpg", "label", "dgo", "dog", "certain"), ("g1", "label", "cat", "dgo", "certain")]
    frame, label_space, _, _ = entries(with_corrections(root, rows, TABLE), "train")
    assert frame["class_name"].tolist() == ["dgo", "dgo", "dog", "dog"] and label_space.classes == ("dgo", "dog")
    told = layout_faults(
        with_corrections(
            root, [("a.jpg", "lable", "cat", "dog", "certain"), ("z", "label", "a", "b", "certain")], TABLE
        )
    )
    assert "did you mean 'label'?" in told[0] and "no training image or group" in told[1]

    rows = [("a.jpg", "g1", "yes", "f"), ("b.jpg", "g2", "no", "m")]
    root = table_folder(tmp_path / "x", rows, ["path", "group", *FACTORS])
    data = TABLE | {"label": None, "factors": FACTORS}
    frame, _, _, _ = entries(with_corrections(root, [("a.jpg", "sex", "f", "m", "certain")], data), "train")
    assert frame["label"].tolist() == [0, 2]


@pytest.mark.parametrize(("disk", "table"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_paths_are_found_in_either_unicode_form(tmp_path, disk, table):
    def name(form: str, shot: int) -> str:
        return unicodedata.normalize(form, f"b\u00e4ume/jos\u00e9_{shot}.png")

    root = table_folder(tmp_path / "d", [(name(disk, shot), f"g{shot}", "xy"[shot % 2]) for shot in range(4)])
    rows = [(name(table, shot), f"g{shot}", "xy"[shot % 2]) for shot in range(4)]
    put_csv(root / "table.csv", ("path", "group", "label"), rows)
    frame, _, _, _ = entries(config_for(root, TABLE), "train")
    assert frame["path"].tolist() == [name(disk, shot) for shot in range(4)]
    assert frame["image_id"].tolist() == [name("NFC", shot) for shot in range(4)]


def test_levels_of_factors_and_the_split_are_read_in_their_plain_spelling(tmp_path):
    rows = [
        ("a.jpg", "g1", "yes ", "f", "train "),
        ("b.jpg", "g2", "no", "m\u00a0", "train"),
        ("c.jpg", "", "", "", " test"),
    ]
    root = table_folder(tmp_path / "d", rows, ["path", "group", *FACTORS, "split"])
    data = TABLE | {"label": None, "factors": {"wear": ["yes", "no "], "sex": ["m", "f"]}, "split": "split"}
    assert entries(config_for(root, data), "train").frame["class_name"].tolist() == ["yes-f", "no-m"]
    assert len(entries(config_for(root, data), "test").frame) == 1


def test_whole_numbers_beside_empty_cells_of_a_parquet_table_stay_whole(tmp_path):
    rows = [("a.jpg", 9_007_199_254_740_993, 1, "train"), ("b.jpg", 2, 2, "train"), ("c.jpg", None, None, "test")]
    root = table_folder(tmp_path / "d", rows, ["path", "group", "label", "split"])
    frame = pd.DataFrame(rows, columns=["path", "group", "label", "split"])
    frame["group"] = pd.array([9_007_199_254_740_993, 2, None], dtype="Int64")
    frame["label"] = pd.array([1, 2, None], dtype="Int64")
    frame.to_parquet(root / "t.parquet")
    found = entries(config_for(root, TABLE | {"table": "t.parquet", "split": "split"}), "train")
    assert found.frame["group"].tolist() == ["9007199254740993", "2"]
    assert found.label_space.classes == ("1", "2")


def test_roles_and_weights_of_a_table(tmp_path):
    rows = [
        ("a.jpg", "g1", "cat", "train", "", ""),
        ("b.jpg", "g2", "dog", "train", "train", "2.5"),
        ("e.jpg", "web", "dog", "train", "train_only", "1e-1"),
        ("t.jpg", "", "", "test", "", "no number"),
    ]
    root = table_folder(tmp_path / "d", rows, ("path", "group", "label", "split", "role", "weight"))
    named = {"split": "split", "role": "role", "weight": "weight"}
    config = config_for(root, TABLE | named)
    train = entries(config, "train").frame
    assert train["train_only"].tolist() == [False, False, True]
    assert train["sample_weight"].tolist() == [1.0, 2.5, 0.1]
    test = entries(config, "test").frame
    assert test["train_only"].tolist() == [False] and test["sample_weight"].tolist() == [1.0]
    plain = config_for(root, TABLE | {"split": "split"})
    assert not {"train_only", "sample_weight"} & set(entries(plain, "train").frame)
    assert config.for_split("test") == plain.for_split("test")
    assert config.for_split("train") != plain.for_split("train")


def test_wrong_roles_and_weights_are_named_by_row(tmp_path):
    rows = [
        ("a.jpg", "g1", "cat", "train", "trian_only", "0"),
        ("b.jpg", "g2", "dog", "train", "external", "-1"),
        ("c.jpg", "g3", "dog", "train", "", "nan"),
        ("d.jpg", "g4", "dog", "train", "", "1e30"),
        ("t.jpg", "", "", "test", "train_only", ""),
    ]
    root = table_folder(tmp_path / "d", rows, ("path", "group", "label", "split", "role", "weight"))
    told = layout_faults(config_for(root, TABLE | {"split": "split", "role": "role", "weight": "weight"}))
    assert len(told) == 7
    assert "row 2: role 'trian_only' is not known; did you mean 'train_only'?" in told[0]
    assert "row 3: role 'external' is not known; write train or train_only" in told[1]
    assert "row 6: role is train_only, but the row is a test row" in told[2]
    assert all(
        f"row {row}: weight" in line and "is no weight" in line for row, line in zip(range(2, 6), told[3:], strict=True)
    )
    many = [(f"{number}.jpg", "g", "cat", "train_only", "x") for number in range(30)]
    root = table_folder(tmp_path / "many", many, ("path", "group", "label", "role", "weight"))
    told = layout_faults(config_for(root, TABLE | {"role": "role", "weight": "weight"}))
    assert "every training row is train_only" in told[0]
    assert len(told) == 21 and told[-1].startswith("... and 11 more")
    told = layout_faults(config_for(root, TABLE | {"role": "rolle"}))
    assert "rolle" in told[0]
