"""The learning-rate range test of a model as a table and a figure."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from foldvote.config.recipe import Recipe
from foldvote.io.csv_files import write_csv
from foldvote.report.svg import FAINT, SERIES, figure_style, new_figure, save_png
from foldvote.runtime.job_log import log
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.lr_range import SuggestedRates, measure_lr_range, suggested_rates
from foldvote.training.state import build_spec
from foldvote.training.training_set import MemberInputs


def write_lr_range(
    seeds: MemberSeeds, recipe: Recipe, inputs: MemberInputs, resources: JobResources, table: Path, figure: Path
) -> None:
    """Measure and draw how the loss of a member depends on the learning rate.

    Args:
        seeds: seed, model name and fold.
        recipe: how it would be trained.
        inputs: what it would learn from.
        resources: what may be used; one process.
        table: the CSV to write, rows of `measure_lr_range`.
        figure: the PNG to write.

    Raises:
        UserError: if inputs do not belong together, or the network does not fit on the device.
    """
    spec = build_spec(seeds, recipe, "", inputs)
    device = resources.device(recipe)
    measured = measure_lr_range(spec, device, resources.workers(device))
    suggested = suggested_rates(measured)
    write_csv(measured, table)
    save_png(plot_lr_range(measured, suggested, spec.name, recipe.lr), figure)
    advice = f"try lr: {suggested.peak:.1e}" if suggested else "the loss did not fall; look at the figure"
    log(f"{spec.name}: learning-rate range test of {len(measured)} steps: {advice} (the recipe has {recipe.lr:.1e})")


def plot_lr_range(measured: pd.DataFrame, suggested: SuggestedRates | None, name: str, own: float) -> Figure:
    """The loss of each step and its running mean by learning rate, with the suggested rates and the recipe's own.

    Args:
        measured: rows of `measure_lr_range`.
        suggested: what they suggest; None: nothing.
        name: of the member, for the title.
        own: the recipe's learning rate.
    """
    with figure_style():
        figure = new_figure(8.0, 3.9)
        axes = figure.add_subplot()
        axes.plot(measured["lr"], measured["loss"], "o", color=FAINT, markersize=3, alpha=0.6, label="a step")
        axes.plot(measured["lr"], measured["smoothed"], color=SERIES[0], label="running mean")
        low, high = measured["smoothed"].min(), measured["smoothed"].iloc[0]
        axes.set_ylim(low - 0.3 * (high - low) - 0.05, high + 0.6 * (high - low) + 0.05)
        marks = {"the recipe's": own}
        if suggested:
            marks |= {"a tenth of that of the lowest loss": suggested.peak, "steepest": suggested.steepest}
        for (label, rate), colour in zip(marks.items(), SERIES[1:], strict=False):
            axes.axvline(rate, color=colour, linewidth=1, linestyle=(0, (3, 2)), label=f"{label}: {rate:.1e}")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        axes.set_title(f"Learning-rate range test of {name}")
        figure.legend(loc="outside lower center", ncols=3)
    return figure
