"""Types that several sections share."""

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.config.base import OUR_NAMES, factor_name_faults, model_name_faults
from foldvote.io.parquet import write_table

NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,11}", fullmatch=True)
ODD = ["007", "50", "1e5", "1.5", "true", "None", "null", "nan", "inf", "2024-01-01", "1_000", "Infinity", "0x12"]


@pytest.mark.parametrize("name", ODD)
def test_names_that_readers_of_partitions_do_not_take_for_texts_are_refused_for_models(name: str) -> None:
    (fault,) = model_name_faults([name])
    assert fault == f"{name}: is read as a number or a value in model={name}; put a letter first, such as m{name}"
    assert model_name_faults([f"m{name}"]) == []


@settings(max_examples=20, deadline=None)
@given(
    names=st.lists(
        st.sampled_from([*ODD, "small", "3x", "x1e5", "fold", "class", "all"]) | NAME, min_size=1, max_size=3
    )
)
def test_a_model_keeps_its_name_and_a_fold_its_number_where_pandas_reads_a_folder(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    names = [name for name in dict.fromkeys(names) if not model_name_faults([name])]
    folder = tmp_path_factory.mktemp("oof")
    for name in names:
        write_table(pd.DataFrame({"a": [1]}), folder / f"model={name}/fold=3/p.parquet", pa.schema([("a", pa.int64())]))
    if names:
        read = pd.read_parquet(folder)
        assert sorted(read["model"].astype(object)) == sorted(names)
        assert all(isinstance(name, str) for name in read["model"].astype(object))
        assert read["fold"].tolist() == [3] * len(names)


def test_models_that_share_a_folder_on_other_systems_or_a_name_in_the_scores_are_refused() -> None:
    assert [line.split(":")[0] for line in model_name_faults(["a", "A", "b.", "Ensemble"])] == ["A", "b.", "Ensemble"]
    assert (
        model_name_faults(["fold", "size", "class", "label", "image_id", "model", "view", "all", "con", "mean"]) == []
    )


def test_factors_that_have_names_of_our_columns_are_refused_whatever_their_case() -> None:
    names = [*OUR_NAMES, "Size", "grade", "Grade", "side"]
    refused = [line.split(":")[0].removeprefix("factors.") for line in factor_name_faults(names)]
    assert refused == [*OUR_NAMES, "Size", "Grade"]
