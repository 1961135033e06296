"""What a manifest depends on, as its job is given it."""

from pathlib import Path
from typing import Any

import pytest

from foldvote.config.data import DataSettings
from foldvote.config.experiment import check_config, load_config

MODELS = {"a": {"net": "resnet18"}}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        {"data": {"layout": "demo"}},
        {"data": {"layout": "maskbase"}, "data_root": "data"},
        {"data": {"layout": "table", "table": "t.csv"}, "data_root": "data"},
    ],
    ids=lambda values: values["data"]["layout"],
)
def test_a_job_finds_the_corrections_where_the_start_of_the_run_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], there: bool
) -> None:
    """Whether they are there already, or are drawn by a job in between."""
    monkeypatch.chdir(tmp_path)
    config = check_config(values | {"models": MODELS, "corrections": "corrections.csv"})
    found = config.corrections_path
    assert found is not None
    settings = config.for_split("train")
    if there or values["data"]["layout"] != "demo":
        found.parent.mkdir(parents=True, exist_ok=True)
        found.write_text("id")
    assert DataSettings.model_validate(settings).corrections_path == found


def test_the_demo_of_the_first_run_has_its_corrections_below_its_own_folder() -> None:
    config = load_config(ROOT / "config/config.yaml")
    settings = DataSettings.model_validate(config.for_split("train"))
    assert settings.corrections_path == config.corrections_path == Path("results/demo/corrections.csv")
