"""The figures of a search: scores by trial, importance of the keys, slices, and parallel coordinates.

They are drawn from the table of trials: the report reads no Optuna study, as optuna.visualization would need.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from foldvote.config.metric_names import shown_metric
from foldvote.config.search_space import Dimension, label
from foldvote.report.svg import FAINT, INK, LINE, PAPER, SERIES, figure_style, new_figure, save_png, save_svg
from foldvote.tuning.trials import COMPLETE, FAILED, INTERRUPTED, PARAM, PRUNED, space_of

FIGURES = ("history", "importance", "slices", "parallel")
_COLUMNS = 3  # of the figure of slices
_LONGEST_NAME = 18  # characters of a listed value
_MOST_CHARACTERS = 30  # of all tick labels of a slice; longer ones are rotated
_NOT_SEARCHED = -0.12  # height in the parallel coordinates for a key that the trial did not have
_ENDED = ((PRUNED, "x", FAINT), (FAILED, "X", SERIES[5]), (INTERRUPTED, "|", FAINT))


def plot_history(trials: pd.DataFrame, record: Mapping[str, Any]) -> Figure:
    """The score of each trial, the best score so far, and the trials that ended without a score.

    Args:
        trials: rows of tune/trials.parquet.
        record: the record of that file.
    """
    done, name = _done(trials), record["score"]
    with figure_style():
        figure = new_figure(8.0, 3.9)
        axes = figure.add_subplot()
        best = done["score"].cummax() if record["higher_is_better"] else done["score"].cummin()
        axes.step(done["number"], best, where="post", color=SERIES[0], linewidth=1.2, label="best so far")
        axes.plot(done["number"], done["score"], "o", color=SERIES[0], markersize=5, label=COMPLETE)
        unchanged = done[done["as_it_stands"]]
        if len(unchanged):
            axes.plot(
                unchanged["number"],
                unchanged["score"],
                "D",
                color=SERIES[1],
                markersize=7,
                label="the unchanged recipe",
            )
        low, high = axes.get_ylim()
        floor = low - 0.08 * (high - low)  # below every score
        for state, marker, colour in _ENDED:
            some = trials.loc[trials["state"] == state, "number"]
            if len(some):
                axes.plot(some, np.full(len(some), floor), marker, color=colour, markersize=6, label=state)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trial")
        axes.set_ylabel(shown_metric(name))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def plot_importance(record: Mapping[str, Any]) -> Figure:
    """The importance of each key: its share of the variance of the scores.

    Args:
        record: the record of tune/trials.parquet.
    """
    shares = dict(sorted(record["importance"].items(), key=lambda item: -item[1]))
    with figure_style():
        figure = new_figure(8.0, 1.0 + 0.32 * max(len(shares), 2))
        axes = figure.add_subplot()
        if not shares:
            axes.axis("off")
            axes.text(0, 0.5, "Too few completed trials to estimate importance.", color=FAINT)
            return figure
        places = np.arange(len(shares))
        axes.barh(places, list(shares.values()), height=0.7, color=SERIES[0])
        for place, share in zip(places, shares.values(), strict=True):
            axes.annotate(f"{share:.2f}", (share, place), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(places, list(shares))
        axes.set_ylim(len(shares) - 0.4, -0.6)
        axes.set_xlim(0, 1.08 * max(shares.values()))
        axes.grid(visible=False, axis="y")
        axes.set_title(f"Importance of each key for {shown_metric(record['score'])}")
    return figure


def plot_slices(trials: pd.DataFrame, record: Mapping[str, Any]) -> Figure:
    """The score against the values of each key; later trials are darker, the best one has a ring.

    Args:
        trials: rows of tune/trials.parquet.
        record: the record of that file.
    """
    done, space = _done(trials), space_of(record)
    columns = min(_COLUMNS, len(space))
    rows = -(-len(space) // columns)
    shades = np.linspace(0.35, 1.0, len(done))
    with figure_style():
        figure = new_figure(1.2 + 3.0 * columns, 0.4 + 2.7 * rows)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, (key, dimension) in zip(grid.flat, space.items(), strict=False):
            places = _places(done[PARAM + key], dimension)
            axes.scatter(places, done["score"], s=26, color=SERIES[0], alpha=shades, linewidths=0)
            best = (done["number"] == record["best"]).to_numpy()
            axes.scatter(
                places[best], done["score"][best], s=110, facecolors="none", edgecolors=SERIES[1], linewidths=2
            )
            _scale(axes, dimension)
            axes.set_title(key)
        for axes in grid.flat[len(space) :]:
            axes.set_visible(False)
        for axes in grid[:, 0]:
            axes.set_ylabel(shown_metric(record["score"]))
    return figure


def plot_parallel(trials: pd.DataFrame, record: Mapping[str, Any]) -> Figure:
    """Parallel coordinates: each completed trial is a line from its values to its score.

    The better half of the trials is coloured, and the best one is emphasised.

    Args:
        trials: rows of tune/trials.parquet.
        record: the record of that file.
    """
    done, space = (
        _done(trials).sort_values("score", ascending=record["higher_is_better"], kind="stable"),
        space_of(record),
    )
    names = [*space, record["score"]]
    with figure_style():
        figure = new_figure(max(8.0, 1.7 * len(names)), 4.2)
        axes = figure.add_subplot()
        heights = [_heights(done[PARAM + key], dimension) for key, dimension in space.items()]
        scores = done["score"].to_numpy(float)
        span = max(np.ptp(scores), 1e-12)
        lines = np.stack([*heights, (scores - scores.min()) / span], axis=1)
        for place, line in enumerate(lines):
            last, better = place == len(lines) - 1, place >= len(lines) / 2
            colour, width = (SERIES[1], 2.4) if last else (SERIES[0], 1.2) if better else (LINE, 1.0)
            axes.plot(range(len(names)), line, color=colour, linewidth=width, zorder=2 + place / len(lines))
        for place, dimension in enumerate([*space.values(), None]):
            axes.axvline(place, color=FAINT, linewidth=1, zorder=1)
            ticks = _ticks(dimension) if dimension else [(0.0, f"{scores.min():.3f}"), (1.0, f"{scores.max():.3f}")]
            missing = [(_NOT_SEARCHED, "not searched")] if dimension and dimension.when else []
            for height, text in [*ticks, *missing]:
                axes.annotate(
                    _cut(text),
                    (place, height),
                    (5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                    color=INK,
                    bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1},
                    zorder=4,
                )
        axes.set_xticks(
            range(len(names)), [shown_metric(name) if name == names[-1] else name for name in names], fontsize=9
        )
        axes.set_xlim(-0.1, len(names) - 1 + 0.45)
        axes.yaxis.set_major_locator(NullLocator())
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(axis="x", length=0)
    return figure


def figures(trials: pd.DataFrame, record: Mapping[str, Any]) -> dict[str, Figure]:
    """All figures, by their names in FIGURES.

    Args:
        trials: rows of tune/trials.parquet.
        record: the record of that file.
    """
    return {
        "history": plot_history(trials, record),
        "importance": plot_importance(record),
        "slices": plot_slices(trials, record),
        "parallel": plot_parallel(trials, record),
    }


def save_figures(trials: pd.DataFrame, record: Mapping[str, Any], folder: Path) -> None:
    """Write all figures as SVG and PNG.

    Args:
        trials: rows of tune/trials.parquet.
        record: the record of that file.
        folder: where the files are written.

    Raises:
        UserError: if a file cannot be written.
    """
    for name, figure in figures(trials, record).items():
        save_svg(figure, folder / f"{name}.svg")
        save_png(figure, folder / f"{name}.png")


def _done(trials: pd.DataFrame) -> pd.DataFrame:
    return trials[trials["state"] == COMPLETE].reset_index(drop=True)


def _places(values: pd.Series, dimension: Dimension) -> npt.NDArray[np.float64]:
    """Values as numbers: for listed values their positions in the list; NaN if the trial did not have the key."""
    if dimension.choice is None:
        return pd.to_numeric(values).to_numpy(np.float64, na_value=np.nan)
    place_of = {label(value): place for place, value in enumerate(dimension.choice)}
    return values.map(place_of).to_numpy(np.float64, na_value=np.nan)


def _heights(values: pd.Series, dimension: Dimension) -> npt.NDArray[np.float64]:
    """Values scaled to 0 (the smallest of the search space) to 1; _NOT_SEARCHED if the trial did not have the key."""
    low, high = (0.0, max(len(dimension.choice) - 1, 1)) if dimension.choice else dimension.range or (0.0, 1.0)
    places = _places(values, dimension)
    if dimension.log:
        low, high, places = np.log(low), np.log(high), np.log(places)
    return np.nan_to_num((places - low) / (high - low), nan=_NOT_SEARCHED)


def _ticks(dimension: Dimension) -> Sequence[tuple[float, str]]:
    if dimension.choice is None:
        return [(place, f"{end:.4g}") for place, end in enumerate(dimension.ends())]
    return [(place / max(len(dimension.choice) - 1, 1), label(value)) for place, value in enumerate(dimension.choice)]


def _scale(axes: Axes, dimension: Dimension) -> None:
    if dimension.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif dimension.choice is not None:
        axes.set_xticks(range(len(dimension.choice)), [_cut(label(value)) for value in dimension.choice])
        crowded = sum(len(_cut(label(value))) for value in dimension.choice) > _MOST_CHARACTERS
        axes.tick_params(axis="x", rotation=20 if crowded else 0, labelsize=8 if crowded else None)
        axes.set_xlim(-0.5, len(dimension.choice) - 0.5)
    elif dimension.int is not None:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
