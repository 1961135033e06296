"""Figures and tables beside the page."""

from pathlib import Path

import pandas as pd
import pytest

from foldvote.io.files import read_json
from foldvote.report.results.gallery import (
    JOINT,
)
from support.report_run import HOSTILE, SCRIPT, Made


def test_the_files_beside_the_page_say_the_same(either: tuple[Made, str, Path]) -> None:
    made, _, folder = either
    metrics = read_json(made.files.metrics)
    names = ["classes.csv", "losses.csv", "pairs.csv", "persons.csv"]
    figures = [f"{name}.svg" for name in ("classes", "confusion", "curves", "reliability", "slices", "votes")]
    assert sorted(path.name for path in (folder / "report").iterdir()) == sorted([*names, *figures])
    scores = pd.read_csv(folder / "report/classes.csv")
    assert scores["support"].sum() == metrics["images"]
    assert scores["f1"].mean() == pytest.approx(metrics["oof"]["ensemble"]["macro_f1"], abs=1e-6)
    losses = pd.read_csv(folder / "report/losses.csv")
    assert len(losses) == metrics["images"] and losses["p_class"].is_monotonic_increasing
    assert losses["loss"].mean() == pytest.approx(metrics["oof"]["ensemble"]["log_loss"], abs=1e-6)
    pairs = pd.read_csv(folder / "report/pairs.csv")
    wrong = pairs[pairs["confusion"] == JOINT]["images"].sum()
    assert wrong == round((1 - metrics["oof"]["ensemble"]["accuracy"]) * metrics["images"])
    if metrics["classes"] == list(HOSTILE.classes):
        assert SCRIPT not in (folder / "report/confusion.svg").read_text(encoding="utf-8")
