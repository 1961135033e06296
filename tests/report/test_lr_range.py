"""The table and the figure of a learning-rate range test."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from foldvote.config.runtime import Runtime
from foldvote.report.lr_range import plot_lr_range, write_lr_range
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.lr_range import SuggestedRates
from foldvote.training.training_set import MemberInputs
from support.tiny_member import make_tiny, recipe


def test_it_is_written_as_a_table_and_a_figure_and_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny = make_tiny(tmp_path)
    table, figure = tmp_path / "losses.csv", tmp_path / "losses.png"
    resources = JobResources(0, 1, Runtime(workers=0))
    write_lr_range(MemberSeeds(1, "tiny", 0), recipe(), MemberInputs(tiny.pixels, tiny.split), resources, table, figure)
    written = pd.read_csv(table)
    assert list(written) == ["step", "lr", "loss", "smoothed"] and len(written) > 20
    with Image.open(figure) as image:
        assert image.width > 800
    told = capfd.readouterr().err
    assert "tiny fold 0: learning-rate range test of" in told and "(the recipe has 1.0e-03)" in told


@pytest.mark.parametrize("suggested", [SuggestedRates(1e-3, 1e-2), None])
def test_the_figure_marks_what_is_suggested_and_what_the_recipe_has(suggested: SuggestedRates | None) -> None:
    losses = np.linspace(2, 1, 30)
    measured = pd.DataFrame({"lr": np.geomspace(1e-7, 10, 30), "loss": losses, "smoothed": losses})
    figure = plot_lr_range(measured, suggested, "tiny fold 0", 0.02)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert "the recipe's: 2.0e-02" in labels
    assert ("a tenth of that of the lowest loss: 1.0e-03" in labels) == (suggested is not None)
