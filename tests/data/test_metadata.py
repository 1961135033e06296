"""Metadata from the cells of a table to the numbers that a network sees."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.config.experiment import Config
from foldvote.data.entries import entries
from foldvote.data.manifest import build_manifest
from foldvote.data.metadata import (
    MOST_DEVIATIONS,
    MOST_LEVELS,
    Encoding,
    Number,
    encode,
    fit_encoding,
    metadata_columns,
    metadata_of_rows,
    read_metadata,
)
from foldvote.errors import UserError
from support.data_folders import class_folders, config_for, put_csv, table_folder
from support.layouts import TABLE, layout_faults
from support.tiny_member import manifest_row, write_manifest

HEADER = ("path", "group", "label", "split", "age", "site")
BOTH = {"age": "number", "site": "category"}


def config(root: Path, rows: list[tuple[str, ...]], **changes: object) -> Config:
    table_folder(root, rows, HEADER)
    return config_for(root, TABLE | {"split": "split", "metadata": BOTH} | changes)


def test_cells_become_numbers_and_texts_of_both_splits(tmp_path: Path) -> None:
    rows = [
        ("a.jpg", "g1", "cat", "train", "12.5", "Seoul"),
        ("b.jpg", "g2", "dog", "train", "", ""),
        ("c.jpg", "", "", "test", "-1e2", "NA"),
    ]
    of = config(tmp_path / "d", rows)
    train, test = (entries(of, split).frame for split in ("train", "test"))
    assert train["meta_age"].tolist()[0] == 12.5 and np.isnan(train["meta_age"].tolist()[1])
    assert train["meta_site"].tolist() == ["Seoul", None]
    assert (test["meta_age"].tolist(), test["meta_site"].tolist()) == ([-100.0], ["NA"])


@pytest.mark.parametrize("text", ["12,5", "n/a", "inf", "nan", "1_0", "0x1", "1e300", "٣"])
def test_what_is_no_number_is_told_with_its_row(tmp_path: Path, text: str) -> None:
    good = [("a.jpg", "g1", "cat", "train", "1", ""), ("b.jpg", "g2", "dog", "train", "", "")]
    for row in (("c.jpg", "g3", "dog", "train", text, ""), ("c.jpg", "", "", "test", text, "")):
        (told,) = layout_faults(config(tmp_path / row[3], [*good, row]))
        assert f"table.csv, row 4: age {text!r} is no finite number" in told


def test_an_id_is_no_category(tmp_path: Path) -> None:
    rows = [(f"{n}.jpg", f"g{n}", "xy"[n % 2], "train", "1", f"patient {n}") for n in range(MOST_LEVELS + 1)]
    put_csv(tmp_path / "table.csv", HEADER, rows)
    for row in rows:
        (tmp_path / row[0]).touch()
    (told,) = layout_faults(config_for(tmp_path, TABLE | {"split": "split", "metadata": BOTH}))
    assert "site has 201 levels in the training rows" in told


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metadata": {"label": "category"}}, "metadata.label: is the column of label"),
        ({"metadata": {"group": "category"}}, "metadata.group: is the column of group"),
        ({"metadata": {"age": "text"}}, "metadata.age"),
        (
            {"metadata": {"wear": "category"}, "label": None, "factors": {"wear": ["a", "b"]}},
            "metadata.wear: is the column of factors",
        ),
        (
            {"metadata": {"age": "number"}, "label": None, "factors": {"meta_age": ["a", "b"]}},
            "factors.meta_age: foldvote has a column meta_age",
        ),
    ],
)
def test_columns_with_another_meaning_are_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        config_for(tmp_path, TABLE | changes)
    assert words in str(caught.value)


def test_the_encoding_is_that_of_the_images_it_was_fitted_on() -> None:
    table = pd.DataFrame({"age": [10.0, 20.0, np.nan], "site": pd.Series(["b", "a", None], dtype=object)})
    encoding = fit_encoding(table)
    assert json.loads(json.dumps(encoding.as_json())) == [
        {"name": "age", "mean": 15.0, "scale": 5.0},
        {"name": "site", "levels": ["a", "b"]},
    ]
    other = pd.DataFrame({"age": [15.0, 1e9, np.nan], "site": pd.Series(["b", "new", None], dtype=object)})
    assert encode(other, encoding).tolist() == [[0, 0, 0, 1, 0], [10, 0, 0, 0, 1], [0, 1, 0, 0, 1]]
    assert encoding.missing.tolist() == [0, 1, 0, 0, 1] and encoding.width == 5


numbers = st.none() | st.floats(-1e100, 1e100)


@given(st.lists(st.tuples(numbers, st.none() | st.text(max_size=3)), min_size=1), st.lists(numbers))
def test_every_encoding_is_finite_and_survives_json(rows: list[tuple], others: list[float | None]) -> None:
    ages, sites = ([row[place] for row in rows] for place in (0, 1))
    table = pd.DataFrame({"age": pd.Series(ages, dtype=float), "site": pd.Series(sites, dtype=object)})
    encoding = Encoding.of_json(json.loads(json.dumps(fit_encoding(table).as_json())))
    assert encoding == fit_encoding(table)
    tests = pd.DataFrame({"age": pd.Series(others, dtype=float), "site": pd.Series([None] * len(others), dtype=object)})
    for some in (table, tests):
        values = encode(some, encoding)
        assert values.shape == (len(some), encoding.width) and values.dtype == np.float32
        assert np.isfinite(values).all() and np.abs(values).max(initial=0) <= 10
        assert (values[:, 2:].sum(axis=1) == 1).all()


@pytest.mark.parametrize("value", [0.0, 7.0, -3e8, 1.7e18, 1e22, -1e99])
def test_a_column_that_hardly_varies_says_next_to_nothing_however_large_its_numbers(value: float) -> None:
    numbers = value * (1 + 1e-11 * np.arange(7))  # also the mean of equal numbers is not exact
    for column in (np.full(7, value), numbers):
        table = pd.DataFrame({"n": column})
        encoding = fit_encoding(table)
        assert np.abs(encode(table, encoding)).max() < 0.1
        assert np.abs(encode(table * 2 + 1000, encoding))[:, 0].max() == MOST_DEVIATIONS
    assert isinstance(one := fit_encoding(pd.DataFrame({"n": np.full(7, 7.0)})).columns[0], Number) and one.scale == 1


def test_metadata_is_read_by_id_from_a_manifest(tmp_path: Path) -> None:
    rows = [manifest_row(f"{n}", f"g{n}", n % 3, "0" * 64, meta_age=float(n), meta_site="s") for n in range(4)]
    write_manifest(pd.DataFrame(rows), tmp_path / "manifest.parquet")
    assert [name for name, _ in metadata_columns({"b": "number", "a": "category"})] == ["meta_a", "meta_b"]
    found = read_metadata(tmp_path / "manifest.parquet", ["3", "1"])
    assert list(found) == ["age", "site"] and found["age"].tolist() == [3, 1]
    assert list(read_metadata(tmp_path / "manifest.parquet", ["1"], ["site"])) == ["site"]
    for ids, columns in ((["9"], ["age"]), (["1"], ["weight"])):
        with pytest.raises(UserError, match=r"lacks '(9|weight)'"):
            read_metadata(tmp_path / "manifest.parquet", ids, columns)


def test_metadata_of_new_rows_is_read_as_that_of_a_table() -> None:
    given = pd.DataFrame(
        {"site": ["north", None, " south\u00a0"], "age": [0.1 + 0.2, np.nan, 3], "more": 1}, index=[5, 6, 7]
    )
    found = metadata_of_rows("metadata", {"site": "category", "age": "number"}, given)
    assert list(found) == ["age", "site"] and found.index.tolist() == [0, 1, 2]
    assert found["age"].tolist()[::2] == [0.1 + 0.2, 3.0] and np.isnan(found["age"][1])
    assert found["site"].tolist() == ["north", None, "south"]
    texts = pd.DataFrame({"age": ["0.30000000000000004", "", "3"], "site": ["north", "", "south"]})
    assert metadata_of_rows("new.csv", {"age": "number", "site": "category"}, texts).equals(found)
    for table, words in (
        (given.drop(columns="age"), "metadata: has no column 'age', which the ensemble sees"),
        (given.assign(site=[1, None, 2]), "metadata: site is a category and holds 1.0; write its levels as texts"),
        (given.assign(site=np.ones(3, np.float32)), "metadata: site is a category and holds 1.0"),
        (given.assign(age=["1", "2", float("inf")]), "metadata, row 2: age 'inf' is no finite number"),
    ):
        with pytest.raises(UserError, match=words):
            metadata_of_rows("metadata", {"age": "number", "site": "category"}, table, first_row=0)


def test_external_images_bring_their_metadata_or_have_none(tmp_path: Path) -> None:
    rows = [("a.jpg", "g1", "cat", "train", "12.5", "Seoul"), ("b.jpg", "g2", "dog", "train", "", "")]
    root = table_folder(tmp_path / "d", rows, HEADER)
    table_folder(tmp_path / "web", [("c.jpg", "q", "cat", "7", "Busan")], ("path", "group", "label", "age", "other"))
    class_folders(tmp_path / "more", ["dog/q_a.jpg"])

    def with_blocks(kind: str) -> Config:
        web = {"data_root": str(tmp_path / "web"), "data": TABLE | {"metadata": {"age": kind, "other": "category"}}}
        folders = {"layout": "folders", "train": ".", "group_pattern": "^(.*)$"}
        more = {"data_root": str(tmp_path / "more"), "data": folders}
        return config_for(root, TABLE | {"metadata": BOTH}, external={"web": web, "more": more}, images={"min_side": 8})

    build_manifest(with_blocks("number"), "train", tmp_path / "manifest.parquet", tmp_path / "bad.parquet")
    found = read_metadata(tmp_path / "manifest.parquet", ["a.jpg", "web/c.jpg", "more/dog/q_a.jpg"])
    np.testing.assert_array_equal(found["age"], [12.5, 7, np.nan])
    assert found["site"].isna().tolist() == [False, True, True]
    with pytest.raises(UserError, match=r"web.data.metadata.age: is a category here and a number in the data"):
        with_blocks("category")
