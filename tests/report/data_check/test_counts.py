"""Data in numbers, against numbers counted by hand."""

import numpy as np
import pandas as pd
import pytest

from foldvote.config.layout_facts import NumericFactor
from foldvote.data.label_space import LabelSpace, factor_label_space
from foldvote.report.data_check import counts
from foldvote.report.html import table
from support.tiny_member import manifest_row

LABEL_SPACE = factor_label_space({"mask": ("on", "off"), "age": ("young", "old")})
AGE = NumericFactor(name="age", column="age_years", borders=(40,))


def manifest() -> pd.DataFrame:
    """Three persons, the last two of one group; no old person is without a mask."""
    rows = []
    for person, group, age, years, masks in (
        ("p", "g1", 0, 20, "001"),
        ("q", "g2", 1, 61, "00"),
        ("r", "g2", 0, 20, "1"),
    ):
        for shot, mask in enumerate(map(int, masks)):
            levels = {"mask": ("on", "off")[mask], "age": ("young", "old")[age]}
            name = f"{person}/{shot}"
            row = manifest_row(name, group, 0, f"{name}-bytes", profile=person, age_years=years)
            rows.append(
                row
                | levels
                | {"label": LABEL_SPACE.code(levels), "class_name": LABEL_SPACE.classes[LABEL_SPACE.code(levels)]}
            )
    return pd.DataFrame(rows)


def folds_of(frame: pd.DataFrame) -> pd.DataFrame:
    once = frame[["image_id", "profile", "group", "label"]].assign(stratum=frame["age"], repeat=0, fold=0)
    return pd.concat([once, once.assign(repeat=1, fold=1)])


def test_images_persons_and_groups_of_classes_and_factors() -> None:
    frame = manifest()
    classes = counts.class_counts(frame, LABEL_SPACE)
    assert classes["name"].tolist() == ["on-young", "on-old", "off-young", "off-old"]
    assert classes[["images", "persons", "groups"]].to_numpy().tolist() == [[2, 1, 1], [2, 1, 1], [2, 2, 2], [0, 0, 0]]
    assert classes["share"].sum() == pytest.approx(1)
    factors = counts.factor_counts(frame, LABEL_SPACE)
    assert factors["age"][["images", "persons", "groups"]].to_numpy().tolist() == [[4, 2, 2], [2, 1, 1]]
    assert counts.factor_counts(frame, LabelSpace(("a", "b"))) == {}


def test_repeats_are_counted_once_and_all_counts_stand_in_one_table() -> None:
    frame = manifest()
    assert counts.stratum_counts(folds_of(frame))["images"].tolist() == [2, 4]
    every = counts.all_counts(frame, folds_of(frame), LABEL_SPACE, AGE)
    assert (every.groupby("kind")["images"].sum() == 6).all()
    assert set(every["kind"]) == {"class", "mask", "age", "stratum", "age_years"}
    assert every[every["kind"] == "age_years"]["name"].tolist() == ["20", "61"]
    without = counts.all_counts(frame, folds_of(frame), LABEL_SPACE, None)
    assert without.equals(every[every["kind"] != "age_years"])


def test_ages_in_years_are_persons_of_each_year_where_there_are_any() -> None:
    frame = manifest()
    ages = counts.number_counts(frame, AGE)
    assert list(ages) == ["number", "band", "persons", "images"]
    assert ages.to_numpy().tolist() == [[20, "young", 2, 4], [61, "old", 1, 2]]
    assert counts.number_counts(frame, None).empty
    assert counts.number_counts(frame.assign(age_years=pd.array([None] * 6, "Int16")), AGE).empty


def test_sizes_formats_and_flags_of_both_splits() -> None:
    train = manifest().assign(width=[30, 30, 30, 60, 60, 9], height=40, flags=["", "tail+warned", "", "", "tail", ""])
    test = train.head(2).assign(format="JPEG", flags="", profile=None, group=None)
    manifests = {"train": train, "test": test}
    sizes = counts.size_counts(manifests)
    assert sizes["size"].tolist() == ["30 x 40", "60 x 40", "9 x 40"]
    assert sizes[["train", "test"]].to_numpy().tolist() == [[3, 2], [2, 0], [1, 0]]
    assert sizes["aspect"].tolist() == pytest.approx([0.75, 1.5, 0.225])
    assert counts.format_counts(manifests).to_numpy().tolist() == [["JPEG", 0, 2], ["PNG", 6, 0]]
    flags = counts.flag_counts(manifests)
    assert flags.to_numpy().tolist() == [["train", "tail", 2, "p/1"], ["train", "warned", 1, "p/1"]]
    empty = pd.DataFrame(columns=["path", "reason", "message"])
    summary = counts.split_summary(manifests, {"train": empty, "test": empty})
    assert summary["persons"].tolist() == [3, pd.NA] and summary["flagged"].tolist() == [2, 0]


def test_many_sizes_are_summed_up() -> None:
    many = pd.concat([manifest()] * 10, ignore_index=True).assign(width=np.arange(60) + 20)
    sizes = counts.size_counts({"train": many})
    assert len(sizes) == counts.MOST_SIZES + 1
    assert sizes["size"].iloc[-1] == "40 others"
    assert sizes["train"].sum() == 60


def test_the_balance_of_folds_is_told_against_the_equal_share() -> None:
    certificate = {
        "strata": [
            {"stratum": "a", "groups": 5, "target_per_fold": 2.5, "by_fold": [2, 3]},
            {"stratum": "b", "groups": 4, "target_per_fold": 2.0, "by_fold": [1, 3]},
        ],
        "classes": [{"class": "x", "by_fold": [4, 6]}],
        "folds": [
            {
                "fold": fold,
                "repeat": 0,
                "train": {"images": 6 - fold, "groups": 3},
                "validation": {"images": 4, "groups": 2},
                "shared": {"images": 0, "profiles": 0, "groups": 0, "bytes": fold},
            }
            for fold in range(2)
        ],
    }
    balance = counts.stratum_balance(certificate)
    assert balance.columns.tolist() == ["stratum", "groups", "target", "fold 0", "fold 1", "departure"]
    assert balance["departure"].tolist() == [0.5, 1.0]
    assert counts.class_balance(certificate).to_numpy().tolist() == [["x", 4, 6]]
    assert counts.fold_sizes(certificate)["shared_bytes"].tolist() == [0, 1]
    certificate["strata"] = [{"stratum": "a", "groups": 5, "target_per_fold": None, "by_fold": [1]}]
    assert counts.stratum_balance(certificate)["departure"].isna().all()


def test_weights_of_classes_are_counted_once_for_all_repeats() -> None:
    folds = folds_of(manifest())
    assert counts.weight_counts(folds, LABEL_SPACE).empty
    folds["sample_weight"] = np.where(folds["label"] == 0, 2.0, 0.5)
    found = counts.weight_counts(folds, LABEL_SPACE).set_index("name")
    assert found.loc["on-young"].tolist() == [2, 4.0, 4 / 6, 2.0, 2.0]
    assert found["share"].sum() == pytest.approx(1) and found["images"].sum() == 6


def test_metadata_is_counted_in_both_splits():
    train = pd.DataFrame({"meta_age": [20.0, np.nan, 40.0, 60.0], "meta_site": ["north", None, "south", "north"]})
    test = pd.DataFrame({"meta_age": [np.nan, 5.0], "meta_site": ["west", "north"]})
    assert counts.metadata_counts({"train": train[[]]}).empty
    found = counts.metadata_counts({"train": train, "test": test}).set_index(["column", "split"])
    assert found.loc["age", ["missing", "least", "mean", "most"]].to_numpy().tolist() == [
        [0.25, 20, 40, 60],
        [0.5, 5, 5, 5],
    ]
    assert found.loc["site", ["missing", "levels", "unseen"]].to_numpy().tolist() == [[0.25, 2, 0], [0, 2, 0.5]]
    alone = counts.metadata_counts({"train": train[["meta_age"]]})
    assert len(table(alone, "Metadata", formats={"unseen": ".1%"}).rows) == 1
