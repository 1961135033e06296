"""Runs from which the reports of these tests are made: drawn once."""

from pathlib import Path

import pytest

from support.report_run import HOME, HOSTILE, Made, drawn_run, drawn_search


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, str, Path]:
    """One model, plain classes with hostile names: run, page, and its folder."""
    folder = tmp_path_factory.mktemp("hostile")
    made = drawn_run(folder / "data", HOSTILE, {"lite0": None})
    return made, made.report(folder), folder


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, str, Path]:
    """Classes of two factors; two whole models and one for each factor: run, page, and its folder."""
    folder = tmp_path_factory.mktemp("home")
    models = {"lite0": None, "lite1": None, "masks": ["mask"], "genders": ["gender"]}
    made = drawn_run(folder / "data", HOME, models, persons=18, test=False)
    return made, made.report(folder, {"layout": "demo"}, search=drawn_search(folder / "trials.parquet")), folder


@pytest.fixture(params=["hostile", "home"])
def either(request: pytest.FixtureRequest) -> tuple[Made, str, Path]:
    return request.getfixturevalue(request.param)
