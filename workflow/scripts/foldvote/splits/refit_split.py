"""Splits beside the folds: one in which every image is learnt from, and those of a learning curve over groups."""

from pathlib import Path
from typing import Any

import pandas as pd

from foldvote.errors import raise_all
from foldvote.io.files import read_json, write_json
from foldvote.io.parquet import write_table
from foldvote.runtime.job_log import log
from foldvote.runtime.seeding import generator
from foldvote.splits.folds import UNVALIDATED, fold_rows, folds_schema, read_folds, split_sha256
from foldvote.splits.reserve import RESERVE
from foldvote.splits.train_only import TRAIN_ONLY, scored_rows, train_only_counts

FEWEST_GROUPS = 10  # that a fold learns from, for a curve


def write_refit_split(folds: Path, certificate: Path, folds_path: Path, certificate_path: Path) -> None:
    """Write the split in which every image is learnt from and none validated.

    Args:
        folds: folds/folds.parquet.
        certificate: folds/certificate.json.
        folds_path: the table to write, schema FOLDS.
        certificate_path: the JSON to write, with the digests of both splits.

    Raises:
        UserError: if the split is not the certified one.
    """
    table, digest = read_folds(folds, certificate)
    whole = everyone(table)
    counts = {"images": len(whole), "groups": whole["group"].nunique()}
    _write(whole, counts | _origin(certificate, digest), folds_path, certificate_path)


def write_curve_split(
    folds: Path, certificate: Path, share: float, seed: int, folds_path: Path, certificate_path: Path
) -> None:
    """Write the split in which each fold of the first repeat learns from a share of its training groups.

    Args:
        folds: folds/folds.parquet.
        certificate: folds/certificate.json.
        share: of the training groups of each fold, below 1.
        seed: the run's seed.
        folds_path: the table to write, schema FOLDS; a `repeat` for each fold.
        certificate_path: the JSON to write, with the digests of both splits and by fold the numbers of groups and
            images that it learns from, without those that are only trained on, which every share has.

    Raises:
        UserError: if a fold learns from too few groups for a curve.
    """
    table, digest = read_folds(folds, certificate)
    first = [fold for fold in sorted(table.loc[table["repeat"] == 0, "fold"].unique()) if fold >= 0]
    raise_all(
        f"refit.curve: fold {fold} learns from {count} groups, and a learning curve needs {FEWEST_GROUPS} or more; set "
        "refit.curve: [] to train on all groups without a forecast"
        for fold in first
        if (count := scored_rows(fold_rows(table, fold)[0])["group"].nunique()) < FEWEST_GROUPS
    )
    drawn = curve_split(table, share, seed)
    found = [(fold, fold_rows(drawn, fold)[0]) for fold in first]
    for fold, learnt in found:
        if absent := set(fold_rows(table, fold)[0]["label"]) - set(learnt["label"]):
            log(f"warning: refit.curve: {share:g} of the groups of fold {fold} hold no image of {len(absent)} classes")
    scored = [(fold, scored_rows(learnt)) for fold, learnt in found]
    sizes = [{"fold": int(fold), "groups": own["group"].nunique(), "images": len(own)} for fold, own in scored]
    _write(drawn, {"share": share, "folds": sizes} | _origin(certificate, digest), folds_path, certificate_path)


def everyone(folds: pd.DataFrame) -> pd.DataFrame:
    """The rows of every image once, the reserve's among them, in no fold.

    Args:
        folds: rows of folds.FOLDS.
    """
    once = folds.sort_values(["image_id", "repeat"], kind="stable").drop_duplicates("image_id")
    return once.assign(repeat=0, fold=UNVALIDATED).astype({"repeat": "int8", "fold": "int8"}).reset_index(drop=True)


def curve_split(folds: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Draw a share of the training groups of each fold of the first repeat.

    The groups of a smaller share are among those of a larger one.

    Args:
        folds: rows of folds.FOLDS.
        share: of the training groups.
        seed: the run's seed.

    Returns:
        Rows of folds.FOLDS. Each fold is a `repeat` of its own: its validation images have its number, the images to
        learn from are in no fold, the reserve stays the reserve, and groups that are not drawn are not in the repeat.
        Images that are only trained on are not drawn: every share learns from those that the member of the fold learns
        from, also from those of groups that are not drawn.
    """
    table, parts = folds[folds["repeat"] == 0], []
    for fold in sorted(number for number in table["fold"].unique() if number >= 0):
        order = _in_every_stratum(scored_rows(fold_rows(table, fold)[0]), seed, int(fold))
        stays = table["fold"].isin([fold, TRAIN_ONLY, RESERVE])
        drawn = table["group"].isin(order[: max(round(share * len(order)), 1)])
        own = table.assign(repeat=fold, fold=table["fold"].where(stays, UNVALIDATED))
        parts.append(own[stays | drawn])
    return pd.concat(parts, ignore_index=True).astype({"repeat": "int8", "fold": "int8"})


def _in_every_stratum(rows: pd.DataFrame, seed: int, fold: int) -> list[str]:
    """The groups in a random order of which every beginning has each stratum's share, but for rounding."""
    strata = rows.groupby("group", sort=True)["stratum"].agg(lambda own: "\t".join(sorted(set(own))))
    draws = generator(seed, "learning curve", fold)
    place = pd.Series(0.0, index=strata.index)
    for names in strata.groupby(strata, sort=True).groups.values():
        place[names] = (draws.permutation(len(names)) + draws.random()) / len(names)
    return place.sort_values(kind="stable").index.tolist()


def _origin(certificate: Path, digest: str) -> dict[str, Any]:
    return {"data_sha256": read_json(certificate)["data_sha256"], "drawn_from": digest}


def _write(folds: pd.DataFrame, content: dict[str, Any], folds_path: Path, certificate_path: Path) -> None:
    digest, train_only = split_sha256(folds), train_only_counts(folds)
    content |= {"train_only": train_only} if train_only else {}
    write_table(
        folds, folds_path, folds_schema(folds.columns), key=("image_id", "repeat"), record={"split_sha256": digest}
    )
    write_json(certificate_path, content | {"split_sha256": digest})
