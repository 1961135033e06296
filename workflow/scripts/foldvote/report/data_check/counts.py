"""Counts of the data: by class, factor, stratum and age, by size and format, and in each fold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from foldvote.config.layout_facts import NumericFactor
from foldvote.data.label_space import LabelSpace
from foldvote.data.manifest_table import WEIGHT
from foldvote.data.metadata import PREFIX

MOST_SIZES = 20  # rows of the table of sizes; the other sizes are summed in one row
OTHERS = "others"


def class_counts(manifest: pd.DataFrame, label_space: LabelSpace) -> pd.DataFrame:
    """Images, persons and groups of each class, in the order of the codes; a class without images counts 0.

    Args:
        manifest: the training manifest.
        label_space: the classes.

    Returns:
        Columns name, images, persons, groups, share (of the images).
    """
    return _by(manifest, "class_name", label_space.classes)


def factor_counts(manifest: pd.DataFrame, label_space: LabelSpace) -> dict[str, pd.DataFrame]:
    """Counts of the levels of each factor, by factor; columns as in `class_counts`.

    Args:
        manifest: the training manifest.
        label_space: the factors.
    """
    return {name: _by(manifest, name, levels) for name, levels in label_space.factors.items()}


def stratum_counts(folds: pd.DataFrame) -> pd.DataFrame:
    """Counts of each stratum of the split; columns as in `class_counts`.

    Args:
        folds: rows of folds.FOLDS, of which the first repeat is counted.
    """
    rows = folds[folds["repeat"] == 0]
    return _by(rows, "stratum", sorted(rows["stratum"].unique()))


def number_counts(manifest: pd.DataFrame, numeric: NumericFactor | None) -> pd.DataFrame:
    """Persons and images by number and band, such as age in years; no rows if the data has no numbers.

    Args:
        manifest: the training manifest.
        numeric: the factor with a number behind it, where there is one.

    Returns:
        Columns number, band, persons, images; by number.
    """
    columns = ["number", "band", "persons", "images"]
    if numeric is None or manifest[numeric.column].isna().all():
        return pd.DataFrame(columns=columns)
    rows = manifest[manifest[numeric.column].notna()].assign(band=lambda rows: rows[numeric.name])
    rows = rows.assign(number=rows[numeric.column].astype(int))
    counted = rows.groupby(["number", "band"]).agg(persons=("profile", "nunique"), images=("image_id", "size"))
    return counted.reset_index()[columns]


def all_counts(
    manifest: pd.DataFrame, folds: pd.DataFrame, label_space: LabelSpace, numeric: NumericFactor | None
) -> pd.DataFrame:
    """All counts of the training images in one long table.

    Args:
        manifest: the training manifest.
        folds: rows of folds.FOLDS.
        label_space: classes and factors.
        numeric: the factor with a number behind it, where there is one.

    Args:
        manifest: training rows.
        folds: rows of folds.FOLDS.
        label_space: the classes.
        numeric: the factor with a number behind it, where there is one.

    Returns:
        Columns kind (class, a factor's name, stratum, the numeric column), name, images, persons, groups, share.
    """
    parts = {"class": class_counts(manifest, label_space), **factor_counts(manifest, label_space)}
    parts["stratum"] = stratum_counts(folds)
    if numeric is not None and manifest[numeric.column].notna().any():
        column = numeric.column
        rows = manifest[manifest[column].notna()].assign(**{column: lambda rows: rows[column].astype(int)})
        parts[column] = _by(rows, column, sorted(rows[column].unique()))
    return pd.concat([table.assign(kind=kind) for kind, table in parts.items()])[
        ["kind", "name", "images", "persons", "groups", "share"]
    ].reset_index(drop=True)


def weight_counts(folds: pd.DataFrame, label_space: LabelSpace) -> pd.DataFrame:
    """The weights of each class in the loss: columns name, images, weight (their sum), share (of all), least, most.

    Args:
        folds: rows of folds.WEIGHTED_FOLDS; of folds.FOLDS, which have no weights, it gives no rows.
        label_space: the classes.
    """
    columns = ["name", "images", "weight", "share", "least", "most"]
    if WEIGHT not in folds:
        return pd.DataFrame(columns=columns)
    weights = folds.drop_duplicates("image_id").groupby("label")[WEIGHT]
    counted = weights.agg(images="size", weight="sum", least="min", most="max")
    counted["share"] = counted["weight"] / counted["weight"].sum()
    return counted.reset_index().assign(name=[label_space.classes[code] for code in counted.index])[columns]


def metadata_counts(manifests: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The metadata of each split, one row per column and split; no rows without metadata.

    Args:
        manifests: manifest rows by split.

    Returns:
        Columns column, split, missing (share of the images), least, mean, most (of a number), levels (of a category)
        and unseen (share of the images whose level no training image has).
    """
    rows: list[dict[str, object]] = []
    train = manifests["train"]
    for name in (name for name in train if name.startswith(PREFIX)):
        for split, manifest in manifests.items():
            values = manifest[name]
            row = {"column": name.removeprefix(PREFIX), "split": split, "missing": values.isna().mean()}
            if pd.api.types.is_float_dtype(values):
                row |= {"least": values.min(), "mean": values.mean(), "most": values.max()}
            else:
                row |= {
                    "levels": values.nunique(),
                    "unseen": (values.notna() & ~values.isin(train[name].dropna())).mean(),
                }
            rows.append(row)
    columns = ["column", "split", "missing", "least", "mean", "most", "levels", "unseen"]
    return pd.DataFrame(rows, columns=columns).astype({"levels": "Int64"})


def split_summary(manifests: Mapping[str, pd.DataFrame], quarantines: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per split.

    Args:
        manifests: manifest rows by split.
        quarantines: rows of manifest_table.QUARANTINE by split.

    Returns:
        Columns split, images, persons, groups (both null for test images), megabytes, left_out, flagged.
    """
    rows = []
    for split, manifest in manifests.items():
        known = split == "train"
        rows.append(
            {
                "split": split,
                "images": len(manifest),
                "persons": manifest["profile"].nunique() if known else None,
                "groups": manifest["group"].nunique() if known else None,
                "megabytes": float(manifest["bytes"].sum()) / 1e6,
                "left_out": len(quarantines[split]),
                "flagged": int((manifest["flags"] != "").sum()),
            }
        )
    return pd.DataFrame(rows).astype({"persons": "Int64", "groups": "Int64"})


def size_counts(manifests: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Images of each size, the most frequent first: at most MOST_SIZES rows, and one for the others.

    Args:
        manifests: manifest rows by split.

    Returns:
        Columns size (width x height in pixels), aspect (width over height; null for the others), and one per split.
    """
    every = pd.concat([rows[["width", "height"]].assign(split=split) for split, rows in manifests.items()])
    counted = every.groupby(["width", "height", "split"]).size().unstack("split", fill_value=0)
    counted = counted.reindex(columns=list(manifests), fill_value=0)
    counted = counted.loc[counted.sum(axis=1).sort_values(ascending=False, kind="stable").index].reset_index()
    sizes = counted["width"].astype(str) + " x " + counted["height"].astype(str)
    table = counted[list(manifests)].copy()
    table.insert(0, "aspect", counted["width"] / counted["height"])
    table.insert(0, "size", sizes)
    table.columns.name = None
    if len(table) <= MOST_SIZES:
        return table
    rest = table.iloc[MOST_SIZES:]
    last = {"size": f"{len(rest):,} {OTHERS}", "aspect": np.nan} | {name: rest[name].sum() for name in manifests}
    return pd.concat([table.iloc[:MOST_SIZES], pd.DataFrame([last])], ignore_index=True)


def format_counts(manifests: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Images of each file format: columns format and one per split.

    Args:
        manifests: manifest rows by split.
    """
    counted = {split: rows["format"].value_counts() for split, rows in manifests.items()}
    table = pd.DataFrame(counted).fillna(0).astype("int64").sort_index()
    return table.rename_axis("format").reset_index()


def flag_counts(manifests: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Images by flag: columns split, flag, images, example (a path); no rows if nothing is flagged.

    Args:
        manifests: manifest rows by split.
    """
    rows = []
    for split, manifest in manifests.items():
        flagged = manifest[manifest["flags"] != ""]
        each = flagged.assign(flag=flagged["flags"].str.split("+")).explode("flag")
        for flag, images in each.groupby("flag", sort=True):
            rows.append({"split": split, "flag": flag, "images": len(images), "example": images["path"].iloc[0]})
    return pd.DataFrame(rows, columns=["split", "flag", "images", "example"])


def stratum_balance(certificate: Mapping[str, Any]) -> pd.DataFrame:
    """Groups of each stratum in each fold, and the equal share.

    Args:
        certificate: `folds/certificate.json`.

    Returns:
        Columns stratum, groups, target (the equal share; null for a hold-out), fold 0, fold 1, ... of the first
        repeat, departure (the largest difference from the target, in groups).
    """
    rows = []
    for stratum in certificate["strata"]:
        target, by_fold = stratum["target_per_fold"], stratum["by_fold"]
        departure = max(abs(number - stratum["groups"] / len(by_fold)) for number in by_fold) if target else None
        row = {"stratum": stratum["stratum"], "groups": stratum["groups"], "target": target}
        rows.append(row | {f"fold {fold}": number for fold, number in enumerate(by_fold)} | {"departure": departure})
    return pd.DataFrame(rows).astype({"target": "float64", "departure": "float64"})


def class_balance(certificate: Mapping[str, Any]) -> pd.DataFrame:
    """Validation images of each class: columns class, fold 0, fold 1, ... of all repeats.

    Args:
        certificate: `folds/certificate.json`.
    """
    numbers = [fold["fold"] for fold in certificate["folds"]]
    rows = [
        {"class": row["class"]} | {f"fold {n}": count for n, count in zip(numbers, row["by_fold"], strict=True)}
        for row in certificate["classes"]
    ]
    return pd.DataFrame(rows)


def fold_sizes(certificate: Mapping[str, Any]) -> pd.DataFrame:
    """One row per fold: images and groups for training and for validation, and what both sides share.

    Args:
        certificate: `folds/certificate.json`.
    """
    rows = []
    for fold in certificate["folds"]:
        row = {"fold": fold["fold"]}
        for part in ("train", "validation"):
            row |= {f"{part}_{unit}": fold[part][unit] for unit in ("images", "groups")}
        rows.append(row | {f"shared_{unit}": number for unit, number in fold["shared"].items()})
    return pd.DataFrame(rows)


def _by(rows: pd.DataFrame, column: str, order: Sequence[Any]) -> pd.DataFrame:
    counted = rows.groupby(column).agg(
        images=("image_id", "size"), persons=("profile", "nunique"), groups=("group", "nunique")
    )
    counted = counted.reindex(list(order), fill_value=0)
    counted["share"] = counted["images"] / max(len(rows), 1)
    return counted.rename_axis("name").reset_index().astype({"name": "str"})
