"""A split is not edited behind its certificate."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote.errors import UserError
from foldvote.io.files import write_json
from foldvote.io.parquet import read_table, write_table
from foldvote.splits.folds import FOLDS, read_folds
from support.splits import Split, persons


@pytest.fixture
def made(tmp_path: Path) -> Split:
    return Split(tmp_path, persons([0, 1, 2] * 5), k=3)


def edited(made: Split, change) -> str:
    write_table(change(read_table(made.folds, FOLDS)), made.folds, FOLDS)
    with pytest.raises(UserError) as refused:
        read_folds(made.folds, made.certificate)
    return str(refused.value)


def test_f32_a_person_in_two_folds_is_refused_by_name(made: Split) -> None:
    def move_one(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[0, "fold"] = (table.loc[0, "fold"] + 1) % 3
        return table

    told = edited(made, move_one)
    assert f"{made.folds}: group p000 stands in 2 folds of one repeat" in told and "profile p000 stands in 2" in told


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.assign(fold=t["fold"].where(t["group"] != "p000", (t["fold"] + 1) % 3).astype("int8")),
        lambda t: t.assign(label=t["label"].where(t["group"] != "p000", 2).astype("int16")),
        lambda t: t.assign(group=t["group"].where(t["group"] != "p000", "p099")),
        lambda t: t.assign(profile=t["profile"].where(t["profile"] != "p000", "p099")),
        lambda t: t.assign(repeat=np.int8(1)),
        lambda t: t.iloc[1:],
        lambda t: t[t["group"] != "p000"],
        lambda t: t.assign(image_id=t["image_id"].where(t["group"] != "p000", t["image_id"] + "x")),
    ],
    ids=["fold", "label", "group", "profile", "repeat", "row", "person", "image"],
)
def test_f32_an_edited_split_is_refused(made: Split, change) -> None:
    assert f"is not the split that {made.certificate} certifies" in edited(made, change)


def test_a_split_in_another_order_or_written_by_pandas_is_the_same(made: Split) -> None:
    table = read_table(made.folds, FOLDS)
    table.sample(frac=1, random_state=1).to_parquet(made.folds, index=False)
    again, digest = read_folds(made.folds, made.certificate)
    assert digest == made.digest and len(again) == len(table)


def test_a_doubled_row_an_empty_table_and_a_foreign_certificate_are_refused(made: Split) -> None:
    table = read_table(made.folds, FOLDS)
    assert "stand twice or more" in edited(made, lambda t: pd.concat([t, t.iloc[:1]]))
    assert "holds no rows" in edited(made, lambda t: t.iloc[:0])
    write_table(table, made.folds, FOLDS)
    for content in ([], {}, {"split_sha256": "0"}, "x", None):
        write_json(made.certificate, content)
        with pytest.raises(UserError, match="is not the split that"):
            read_folds(made.folds, made.certificate)
    made.certificate.unlink()
    with pytest.raises(UserError, match="missing; run your command again"):
        read_folds(made.folds, made.certificate)
