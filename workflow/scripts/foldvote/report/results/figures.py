"""The figures of the report."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from foldvote.config.metric_names import shown_metric
from foldvote.report.svg import FAINT, INK, LINE, PAPER, SERIES, figure_style, new_figure

MOST_BARS = 60  # rows of a figure; further rows are shown in the table only
MOST_NUMBERS = 30  # levels of a confusion matrix; with more, its cells have no numbers
_ROW = 0.26  # height of a row in inches
_LONGEST_NAME = 40  # characters of a name in a figure; tables show the whole name


def plot_votes(votes: pd.DataFrame, main: str = "macro_f1") -> Figure:
    """The nested main metric of each ensemble method with its interval, and the optimistic one.

    Args:
        votes: rows of the leaderboard of kind `vote`.
        main: the main metric's name in tables.
    """
    with figure_style():
        figure = new_figure(8.0, 1.3 + 0.32 * len(votes))
        axes, places = figure.add_subplot(), np.arange(len(votes))
        axes.hlines(places, votes[f"{main}_low"], votes[f"{main}_high"], color=LINE, linewidth=5, label="95 % interval")
        axes.hlines(places, votes[main], votes[f"optimistic_{main}"], color=FAINT, linewidth=1)
        axes.plot(votes[main], places, "o", color=SERIES[0], label="nested: on persons that were not fitted on")
        axes.plot(
            votes[f"optimistic_{main}"], places, "D", color=SERIES[1], markersize=5, mfc="none", label="optimistic"
        )
        _rows(axes, votes["model"].tolist())
        axes.set_xlabel(shown_metric(main))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def plot_curves(histories: Mapping[str, Mapping[int, pd.DataFrame]]) -> Figure:
    """Learning curves: one row per model, loss on the left, validation macro-F1 on the right, one line per fold.

    Args:
        histories: rows of history.HISTORY by model and fold.
    """
    with figure_style():
        figure = new_figure(9.0, 0.6 + 2.5 * len(histories))
        grid = figure.subplots(len(histories), 2, squeeze=False)
        for (left, right), (model, folds) in zip(grid, histories.items(), strict=True):
            for number, (fold, history) in enumerate(folds.items()):
                colour, name = SERIES[number % len(SERIES)], f"fold {fold}"
                dash = "-" if number < len(SERIES) else (0, (4, 1.5))
                left.plot(
                    history["epoch"], history["train_loss"], color=colour, alpha=0.55, linewidth=1, ls=(0, (1, 1))
                )
                left.plot(history["epoch"], history["val_loss"], color=colour, linewidth=1.4, ls=dash)
                right.plot(history["epoch"], history["val_macro_f1"], color=colour, linewidth=1.4, ls=dash, label=name)
                best = history[history["best"]]
                right.plot(best["epoch"], best["val_macro_f1"], "o", color=colour, markersize=6, mfc=PAPER)
            left.set_title(f"{_short(model)}: loss (dotted: training)")
            right.set_title(f"{_short(model)}: validation macro-F1")
            right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
            for axes in (left, right):
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
    return figure


def plot_confusion(counts: npt.NDArray[np.int64], levels: Sequence[str], name: str) -> Figure:
    """A confusion matrix: shades are shares of the true level, numbers are images.

    Args:
        counts: int64 (levels, levels); rows are true levels, columns are predicted levels.
        levels: level names in the order of their codes.
        name: `classes`, or the name of a factor.
    """
    side = len(levels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with figure_style():
        inches = float(np.clip(1.8 + 0.36 * side, 3.0, 10.0))
        figure = new_figure(inches + 1.5, inches)
        axes = figure.add_subplot()
        axes.grid(visible=False)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
        if side <= MOST_NUMBERS:
            for true, predicted in np.argwhere(counts > 0):
                colour = PAPER if shares[true, predicted] > 0.6 else INK
                text = f"{counts[true, predicted]:,}"
                axes.text(predicted, true, text, ha="center", va="center", fontsize=8, color=colour)
        if side <= MOST_BARS:
            axes.set_yticks(range(side), [f"{_short(level)}  {code}" for code, level in enumerate(levels)])
            axes.set_xticks(range(side), [str(code) for code in range(side)])
        axes.set_title(f"True {name} (rows) and predicted {name} (columns)")
    return figure


def plot_reliability(reliability: pd.DataFrame) -> Figure:
    """Reliability diagram before and after calibration, with the number of images per bin below.

    Args:
        reliability: rows of ensemble/reliability.csv.
    """
    with figure_style():
        figure = new_figure(7.0, 4.2)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (3, 2)), label="perfectly calibrated")
        for number, (name, rows) in enumerate(reliability.groupby("calibration", sort=False)):
            full = rows[rows["images"] > 0]
            upper.plot(full["confidence"], full["accuracy"], "o-", color=SERIES[number], markersize=4, label=name)
            edges = np.append(rows["low"].to_numpy(), 1.0)
            lower.stairs(rows["images"], edges, color=SERIES[number], linewidth=1.4, fill=False)
        upper.set_ylabel("accuracy")
        upper.set_ylim(-0.03, 1.03)
        lower.set_ylabel("images")
        lower.set_xlabel("confidence of the ensemble")
        lower.set_xlim(0, 1)
        upper.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def plot_classes(scores: pd.DataFrame, name: str = "F1") -> Figure:
    """F1 of each class as bars, in the order of the codes.

    Args:
        scores: tables.class_scores.
        name: of the score, for the title.
    """
    with figure_style():
        figure = new_figure(8.0, 0.8 + _ROW * len(scores))
        axes, places = figure.add_subplot(), np.arange(len(scores))
        axes.barh(places, scores["f1"], height=0.7, color=SERIES[0])
        for place, f1, support in zip(places, scores["f1"], scores["support"], strict=True):
            axes.annotate(f"{f1:.2f} ({support:,})", (f1, place), (4, 0), textcoords="offset points", va="center")
        _rows(axes, scores["class"].tolist())
        axes.set_xlim(0, 1.12)
        axes.set_title(f"{name} of each class (number of images in brackets)")
    return figure


def several_values(slices: pd.DataFrame) -> pd.DataFrame:
    """Without slicings of one value, which repeat the score of all images; unchanged if there are no others."""
    several = slices.groupby("slice")["value"].transform("size") > 1
    return slices[several] if several.any() else slices


def plot_slices(slices: pd.DataFrame) -> Figure:
    """Accuracy of each slice with its interval from a bootstrap over persons, in the order given.

    Args:
        slices: rows of ensemble/slices.csv, at least one.
    """
    with figure_style():
        figure = new_figure(8.0, 1.1 + _ROW * len(slices))
        axes, places = figure.add_subplot(), np.arange(len(slices))
        axes.hlines(places, slices["accuracy_low"], slices["accuracy_high"], color=LINE, linewidth=5)
        axes.plot(slices["accuracy"], places, "o", color=SERIES[0])
        _rows(axes, [f"{name}: {value}" for name, value in zip(slices["slice"], slices["value"], strict=True)])
        axes.set_xlim(-0.02, 1.02)
        axes.set_title("Accuracy and its 95 % interval over persons")
    return figure


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _short(name: str) -> str:
    name = str(name)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
