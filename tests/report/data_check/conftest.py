"""Data stages from which the data checks of these tests are made: run once."""

from pathlib import Path

import pytest

from foldvote.config.experiment import Config
from foldvote.report.data_check.inputs import DataCheckFiles, DataCheckInputs, read_data_check_inputs
from support.data_check_run import data_folder, prepared
from support.data_folders import config_for


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, DataCheckFiles, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    layout = {"layout": "table", "table": "table.csv", "split": "split"}
    images = {"on_bad": "quarantine", "min_side": 8}
    config = config_for(data_folder(folder / "data"), layout, images=images, corrections="corrections.csv")
    return config, prepared(config, folder / "made"), folder


@pytest.fixture(scope="session")
def inputs(hostile: tuple[Config, DataCheckFiles, Path]) -> DataCheckInputs:
    return read_data_check_inputs(hostile[1])
