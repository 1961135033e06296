"""The figures of the data check."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from foldvote.config.layout_facts import NumericFactor
from foldvote.report.svg import FAINT, INK, LINE, SERIES, figure_style, new_figure

_BAR = 0.24  # height of a row in inches
_LONGEST_NAME = 40  # characters of a class name in a figure; tables show the whole name
MEASURED = ("brightness", "contrast", "saturation")


def plot_counts(counted: pd.DataFrame) -> Figure:
    """Images of each class as bars, with the numbers of images and persons.

    Args:
        counted: the result of counts.class_counts.
    """
    with figure_style():
        figure = new_figure(8.0, 0.7 + _BAR * len(counted))
        axes = figure.add_subplot()
        places = np.arange(len(counted))
        axes.barh(places, counted["images"], height=0.7, color=SERIES[0])
        for place, images, persons in zip(places, counted["images"], counted["persons"], strict=True):
            axes.annotate(
                f"{images:,} ({persons:,})", (images, place), (4, 0), textcoords="offset points", va="center", color=INK
            )
        axes.set_yticks(places, [_short(name) for name in counted["name"]])
        axes.set_ylim(len(counted) - 0.4, -0.6)
        axes.margins(x=0.16)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title("Images of each class (persons in brackets)")
    return figure


def plot_numbers(numbers: pd.DataFrame, numeric: NumericFactor) -> Figure:
    """Persons by number, such as age in years, with lines at the borders of the bands.

    Args:
        numbers: the result of counts.number_counts, at least one row.
        numeric: the factor with a number behind it.
    """
    with figure_style():
        figure = new_figure(8.0, 2.8)
        axes = figure.add_subplot()
        for number, (band, rows) in enumerate(numbers.groupby("band", sort=False)):
            axes.bar(
                rows["number"], rows["persons"], width=0.85, color=SERIES[number % len(SERIES)], label=_short(band)
            )
        for border in numeric.borders:
            axes.axvline(border - 0.5, color=FAINT, linewidth=1, linestyle=(0, (3, 2)))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(f"Persons by {numeric.name} in {numeric.unit}")
        if numbers["band"].nunique() > 1:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=min(numbers["band"].nunique(), 5))
    return figure


def plot_light(light: Mapping[str, pd.DataFrame]) -> Figure:
    """Histograms of brightness, contrast and saturation of the images, as shares of each split.

    Args:
        light: rows of image_statistics.IMAGE_STATISTICS by split, at least one image each.
    """
    with figure_style():
        figure = new_figure(9.0, 2.7)
        for place, measure in enumerate(MEASURED):
            axes = figure.add_subplot(1, len(MEASURED), place + 1)
            every = np.concatenate([rows[measure].to_numpy() for rows in light.values()])
            edges = np.histogram_bin_edges(every, bins=24)
            for number, (split, rows) in enumerate(light.items()):
                shares = np.histogram(rows[measure], edges)[0] / max(len(rows), 1)
                axes.stairs(shares, edges, color=SERIES[number], linewidth=1.8, label=split, fill=False)
            axes.set_title(measure)
            axes.set_yticks([])
            axes.set_ylim(bottom=0)
            axes.spines["left"].set_visible(False)
        if len(light) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def plot_folds(balance: pd.DataFrame) -> Figure:
    """The difference of each fold from its equal share of each stratum, in groups: one dot per fold.

    Args:
        balance: the result of counts.stratum_balance, with targets.
    """
    folds = [name for name in balance.columns if name.startswith("fold ")]
    with figure_style():
        figure = new_figure(8.0, 1.1 + 0.34 * len(balance))
        axes = figure.add_subplot()
        places = np.arange(len(balance))
        shares = balance["groups"] / len(folds)
        axes.axvspan(-1, 1, color=LINE, alpha=0.35, linewidth=0)
        for number, fold in enumerate(folds):
            offset = (number - (len(folds) - 1) / 2) * 0.7 / max(len(folds), 1)
            colour = SERIES[number % len(SERIES)]
            axes.plot(balance[fold] - shares, places + offset, "o", color=colour, markersize=5, label=fold)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(places, [_short(name) for name in balance["stratum"]])
        axes.set_ylim(len(balance) - 0.4, -0.6)
        widest = max(1.2, float(np.nanmax(balance["departure"])) * 1.15)
        axes.set_xlim(-widest, widest)
        axes.set_title("Groups above or below an equal share")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
    return figure


def _short(name: str) -> str:
    name = str(name)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
