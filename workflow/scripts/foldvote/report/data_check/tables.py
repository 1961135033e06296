"""The tables and figures of the data check, for its page."""

from typing import Any

import pandas as pd

from foldvote.data.image_statistics import MEASURES
from foldvote.data.label_corrections import COLUMNS
from foldvote.report.data_check import counts, figures
from foldvote.report.data_check.inputs import DataCheckInputs
from foldvote.report.html import Table, table
from foldvote.report.svg import Drawing, inline_svg

MOST_QUARANTINED = 500  # rows of the table of quarantined images
MOST_CORRECTIONS = 1000
_MOST_BARS = 60  # classes or strata of a figure; with more, only the table is shown
_SHARE = {"share": ".1%"}


def page_tables(inputs: DataCheckInputs) -> dict[str, Any]:
    """Tables by name; None where there is nothing to show.

    Args:
        inputs: the tables of the data stages.

    Returns:
        Tables; but `counted` and `quarantine` are lists of pairs of a name and a table.
    """
    counted = [("class", counts.class_counts(inputs.train, inputs.label_space))]
    counted += list(counts.factor_counts(inputs.train, inputs.label_space).items())
    counted.append(("stratum", counts.stratum_counts(inputs.folds)))
    numbers, numeric = counts.number_counts(inputs.train, inputs.numeric), inputs.numeric
    tabs = [(name, table(rows, f"Training images by {name}", formats=_SHARE)) for name, rows in counted]
    if numeric is not None and len(numbers):
        what = f"{numeric.name} in {numeric.unit}"
        tabs.append((what, table(numbers, f"Persons by {what}", labels={"number": numeric.unit})))
    weights = counts.weight_counts(inputs.folds, inputs.label_space)
    if len(weights):
        formats = _SHARE | dict.fromkeys(("weight", "least", "most"), ".4g")
        tabs.append(("weight", table(weights, "Weights of training images by class", formats=formats)))
    metadata = counts.metadata_counts(inputs.manifests)
    if len(metadata):
        formats = dict.fromkeys(("missing", "unseen"), ".1%") | dict.fromkeys(("least", "mean", "most"), ".4g")
        tabs.append(("metadata", table(metadata, "Metadata of the images of each split", formats=formats)))
    balance = counts.stratum_balance(inputs.certificate)
    classes = counts.class_balance(inputs.certificate)
    return {
        "counted": tabs,
        "splits": table(
            counts.split_summary(inputs.manifests, inputs.quarantines),
            "Images by split",
            formats={"megabytes": ",.1f"},
            sortable=False,
        ),
        "sizes": table(counts.size_counts(inputs.manifests), "Images by size in pixels", formats={"aspect": ".3f"}),
        "formats": table(counts.format_counts(inputs.manifests), "Images by file format", sortable=False),
        "flags": _or_none(counts.flag_counts(inputs.manifests), "Flags of files"),
        "light": table(
            _light_rows(inputs),
            "Mean brightness and colour",
            formats=dict.fromkeys(MEASURES, ".1f") | {"saturation": ".3f"},
        ),
        "fold_sizes": table(counts.fold_sizes(inputs.certificate), "Images and groups of each fold", sortable=False),
        "balance": table(
            balance,
            "Groups of each stratum in each fold",
            formats={"target": ".1f", "departure": ".1f"},
            labels={"target": "equal share", "departure": "largest deviation"},
        ),
        "classes": table(classes, "Validation images of each class in each fold"),
        "quarantine": [
            (split, table(rows.head(MOST_QUARANTINED), f"Quarantine of {split}"))
            for split, rows in inputs.quarantines.items()
            if len(rows)
        ],
        "corrections": _or_none(
            pd.DataFrame(inputs.corrections.get("applied", [])[:MOST_CORRECTIONS], columns=list(COLUMNS)),
            "Corrections applied",
        ),
    }


def page_figures(inputs: DataCheckInputs) -> dict[str, Drawing | None]:
    """Figures by name; None where there is nothing to draw.

    Args:
        inputs: the tables of the data stages.
    """
    drawings: dict[str, Drawing | None] = dict.fromkeys(("classes", "ages", "light", "folds"))
    counted = counts.class_counts(inputs.train, inputs.label_space)
    if len(counted) <= _MOST_BARS:
        drawings["classes"] = inline_svg(figures.plot_counts(counted), "Bars: images and persons of each class.")
    numbers, numeric = counts.number_counts(inputs.train, inputs.numeric), inputs.numeric
    if numeric is not None and len(numbers):
        drawings["ages"] = inline_svg(
            figures.plot_numbers(numbers, numeric),
            f"Bars: persons of each {numeric.name} in {numeric.unit}.",
            f"As stated in the data. Dashed: borders of the {numeric.name} bands.",
        )
    light = {split: rows for split, rows in inputs.light.items() if len(rows)}
    drawings["light"] = inline_svg(
        figures.plot_light(light),
        "Histograms of brightness, contrast and saturation.",
        "Share of each split's images.",
    )
    balance = counts.stratum_balance(inputs.certificate)
    if balance["departure"].notna().all() and len(balance) <= _MOST_BARS:
        drawings["folds"] = inline_svg(
            figures.plot_folds(balance),
            "Dots: the difference of each fold from its equal share of each stratum.",
            "Groups are never split, so a difference below one group (shaded) is the best possible.",
        )
    return drawings


def _light_rows(inputs: DataCheckInputs) -> pd.DataFrame:
    """Means over each split, and over the training images of each level of each factor."""
    rows = [{"images of": split} | light[list(MEASURES)].mean().to_dict() for split, light in inputs.light.items()]
    train = inputs.light["train"].merge(inputs.train[["image_id", *inputs.label_space.factors]], on="image_id")
    for factor, levels in inputs.label_space.factors.items():
        means = train.groupby(factor)[list(MEASURES)].mean()
        rows += [
            {"images of": f"{factor}: {level}"} | means.loc[level].to_dict() for level in levels if level in means.index
        ]
    return pd.DataFrame(rows)


def _or_none(rows: pd.DataFrame, caption: str) -> Table | None:
    return table(rows, caption) if len(rows) else None
