"""Columns of the manifest or of a table: what is told before any job is what the job would find."""

from pathlib import Path

import pandas as pd
import pytest

from foldvote.config.experiment import Config
from foldvote.data.entries import entries
from foldvote.data.further_columns import column_faults, column_values
from foldvote.errors import UserError
from support.data_folders import config_for, maskbase_folder, table_folder


def manifest_of(config: Config) -> pd.DataFrame:
    """As far as it is known without opening an image."""
    return entries(config, "train").frame.set_index("image_id")


def test_values_come_from_the_manifest_or_from_the_table_of_persons(tmp_path: Path) -> None:
    config = config_for(maskbase_folder(tmp_path / "d"))
    manifest, tables = manifest_of(config), config.tables("train")
    ids = manifest.index.tolist()[::-1]
    assert list(column_values(manifest, tables, config.data, ids, "race")) == ["Asian"] * len(ids)
    assert list(column_values(manifest, tables, config.data, ids, "gender")) == manifest["gender"][ids].tolist()


def test_values_come_from_a_table_of_images_and_are_empty_where_it_has_none(tmp_path: Path) -> None:
    rows = [(f"{n}.png", f"p{n}", "ab"[n % 2], "" if n == 1 else f"site {n}") for n in range(3)]
    root = table_folder(tmp_path / "d", rows, ("path", "group", "label", "site"))
    config = config_for(root, {"layout": "table", "table": "table.csv"})
    manifest, tables = manifest_of(config), config.tables("train")
    assert list(column_values(manifest, tables, config.data, ["2.png", "1.png"], "site")) == ["site 2", ""]


@pytest.mark.parametrize("name", ["race", "gender", "age", "age_years", "group", "id", "path", "rase", "site"])
def test_the_early_check_and_the_job_agree(tmp_path: Path, name: str) -> None:
    config = config_for(maskbase_folder(tmp_path / "d"))
    manifest, told = manifest_of(config), column_faults(config, [name])
    try:
        column_values(manifest, config.tables("train"), config.data, manifest.index.tolist(), name)
        assert told == []
    except UserError as error:
        assert told == list(error.faults)
