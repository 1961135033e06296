"""The tables and figures of the data check, ready for its page."""

from typing import Any

import pandas as pd

from foldvote.data.image_statistics import MEASURES
from foldvote.data.label_corrections import COLUMNS
from foldvote.report.data_check import counts, figures
from foldvote.report.data_check.inputs import DataCheckInputs
from foldvote.report.html import Table, table
from foldvote.report.svg import Drawing, inline_svg

MOST_LEFT_OUT = 500  # rows of the table of images left out
MOST_CORRECTIONS = 1000
_MOST_BARS = 60  # classes of a figure; more are in the table only
_SHARE = {"share": ".1%"}


def page_tables(facts: DataCheckInputs) -> dict[str, Any]:
    """Tables by name; `counted` holds pairs of a name and its table, for tabs."""
    counted = [("class", counts.class_counts(facts.train, facts.scheme))]
    counted += list(counts.factor_counts(facts.train, facts.scheme).items())
    counted.append(("stratum", counts.stratum_counts(facts.folds)))
    numbers, numeric = counts.number_counts(facts.train, facts.numeric), facts.numeric
    tabs = [(name, table(rows, f"Training images by {name}", formats=_SHARE)) for name, rows in counted]
    if numeric is not None and len(numbers):
        what = f"{numeric.name} in {numeric.unit}"
        tabs.append((what, table(numbers, f"Persons by {what}", labels={"number": numeric.unit})))
    balance = counts.stratum_balance(facts.certificate)
    classes = counts.class_balance(facts.certificate)
    return {
        "counted": tabs,
        "splits": table(
            counts.split_summary(facts.manifests, facts.quarantines),
            "What there is",
            formats={"megabytes": ",.1f"},
            sortable=False,
        ),
        "sizes": table(counts.size_counts(facts.manifests), "Images by size in pixels", formats={"aspect": ".3f"}),
        "formats": table(counts.format_counts(facts.manifests), "Images by file format", sortable=False),
        "flags": _or_none(counts.flag_counts(facts.manifests), "What is unusual about files"),
        "light": table(
            _light_rows(facts), "Mean light and colour", formats=dict.fromkeys(MEASURES, ".1f") | {"saturation": ".3f"}
        ),
        "fold_sizes": table(counts.fold_sizes(facts.certificate), "Images and groups of each fold", sortable=False),
        "balance": table(
            balance,
            "Groups of each stratum in each fold",
            formats={"target": ".1f", "departure": ".1f"},
            labels={"target": "equal share", "departure": "farthest from it"},
        ),
        "classes": table(classes, "Validation images of each class in each fold"),
        "left_out": [
            (split, table(rows.head(MOST_LEFT_OUT), f"Left out of {split}"))
            for split, rows in facts.quarantines.items()
            if len(rows)
        ],
        "corrections": _or_none(
            pd.DataFrame(facts.corrections.get("applied", [])[:MOST_CORRECTIONS], columns=list(COLUMNS)),
            "Corrections applied",
        ),
    }


def page_figures(facts: DataCheckInputs) -> dict[str, Drawing | None]:
    """Figures by name; None where there is nothing to draw."""
    drawings: dict[str, Drawing | None] = dict.fromkeys(("classes", "ages", "light", "folds"))
    counted = counts.class_counts(facts.train, facts.scheme)
    if len(counted) <= _MOST_BARS:
        drawings["classes"] = inline_svg(figures.plot_counts(counted), "Bars: images and persons of each class.")
    numbers, numeric = counts.number_counts(facts.train, facts.numeric), facts.numeric
    if numeric is not None and len(numbers):
        drawings["ages"] = inline_svg(
            figures.plot_numbers(numbers, numeric),
            f"Bars: persons of each {numeric.name} in {numeric.unit}.",
            f"As told. Dashed: borders of the {numeric.name} bands.",
        )
    light = {split: rows for split, rows in facts.light.items() if len(rows)}
    drawings["light"] = inline_svg(
        figures.plot_light(light),
        "Histograms of brightness, contrast and saturation.",
        "Share of each split's images.",
    )
    balance = counts.stratum_balance(facts.certificate)
    if balance["departure"].notna().all() and len(balance) <= _MOST_BARS:
        drawings["folds"] = inline_svg(
            figures.plot_folds(balance),
            "Dots: how far each fold is from its equal share of each stratum.",
            "Whole groups cannot be cut: within the shaded band, less than one group off, a fold is as even as can be.",
        )
    return drawings


def _light_rows(facts: DataCheckInputs) -> pd.DataFrame:
    """Means of both splits, and of the training images by each level of each factor."""
    rows = [{"images of": split} | light[list(MEASURES)].mean().to_dict() for split, light in facts.light.items()]
    train = facts.light["train"].merge(facts.train[["image_id", *facts.scheme.factors]], on="image_id")
    for factor, levels in facts.scheme.factors.items():
        means = train.groupby(factor)[list(MEASURES)].mean()
        rows += [
            {"images of": f"{factor}: {level}"} | means.loc[level].to_dict() for level in levels if level in means.index
        ]
    return pd.DataFrame(rows)


def _or_none(rows: pd.DataFrame, caption: str) -> Table | None:
    return table(rows, caption) if len(rows) else None
