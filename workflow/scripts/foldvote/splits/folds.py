"""The split: whole groups are assigned to folds, balanced over strata; every later stage checks it again."""

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from foldvote.config.folds import Folds
from foldvote.data.duplicates import joining_files, merge_groups
from foldvote.data.label_space import label_space_from_json, write_label_space
from foldvote.data.manifest_table import ONLY, WEIGHT
from foldvote.errors import UserError, raise_all
from foldvote.io.csv_files import read_user_table
from foldvote.io.files import read_json, sha256_lines, write_json
from foldvote.io.names import look, spelled
from foldvote.io.parquet import column_names, read_record, read_table, write_table
from foldvote.runtime.job_log import log
from foldvote.runtime.seeding import derive
from foldvote.splits.certificate import certify
from foldvote.splits.reserve import RESERVE, draw_reserve
from foldvote.splits.train_only import (
    scored_rows,
    train_only_counts,
    train_only_faults,
    training_rows,
    with_train_only,
)

_MORE_GROUPS = {
    "kfold": "give it more groups or lower folds.k",
    "holdout": "give it more groups or raise folds.fraction",
    "file": "spread its groups over the folds of {file}",
}
_EMPTY = {
    "kfold": "lower folds.k",
    "holdout": "raise folds.fraction",
    "file": "number the folds from 0 without a gap, and set folds.k to their number",
}
MOST_JOINS = 5  # files that join groups, told in the log
UNVALIDATED = -1  # fold of the rows that a hold-out uses for training only


def make_folds(
    manifest_path: Path, settings: Folds, seed: int, folds_path: Path, certificate_path: Path, classes_path: Path
) -> None:
    """Split the training images and write the split with its certificate.

    Args:
        manifest_path: manifest of the training images.
        settings: the `folds` section of the configuration.
        seed: the run's seed.
        folds_path: the parquet file to write, schema FOLDS, with weights WEIGHTED_FOLDS: one row per image and repeat.
        certificate_path: the JSON file to write, see certificate.certify.
        classes_path: the JSON file to write, with the classes and factors of the manifest.

    Raises:
        UserError: if the data cannot be split as asked; nothing is written then.
    """
    manifest = read_table(manifest_path).sort_values("image_id", kind="stable").reset_index(drop=True)
    record = read_record(manifest_path)
    label_space = label_space_from_json(record["scheme"])
    if manifest.empty:
        raise UserError(f"{manifest_path}: no training images; check data_root")
    group, merged = merge_groups(manifest)
    joined = _joins(manifest) if merged else []
    if settings.duplicates == "error":
        raise_all(f"folds: {line}, or set folds.duplicates: merge" for line in joined)
    rows = pd.DataFrame(
        {
            "image_id": manifest["image_id"],
            "profile": manifest["profile"],
            "group": group,
            "stratum": _strata(manifest, settings),
            "label": manifest["label"],
        }
    )
    if WEIGHT in manifest:
        rows[WEIGHT] = manifest[WEIGHT]
    scored = _scored(manifest)
    if not scored.any():
        raise UserError(f"{manifest_path}: all images are train_only, so that none can be scored; correct the roles")
    try:
        method, folds = _assign_folds(rows[scored], manifest.loc[scored, "group"], settings, seed)
    except UserError as error:
        if not joined or settings.method == "file":
            raise
        told = f"{error.faults[0].partition('; ')[0]}, since equal files join groups; leave these files out:"
        raise UserError(told, *(f"folds: {line}" for line in joined)) from None
    raise_all(_faults_with_reasons(folds, settings, joined))
    folds = with_train_only(folds, rows[~scored])
    digest = split_sha256(folds)
    certificate = certify(folds, manifest.assign(group=group), label_space, settings, merged)
    certificate |= {"method": method, "seed": seed, "split_sha256": digest}
    certificate["data_sha256"] = record["data_sha256"]
    if settings.on_rare == "error":
        remedy = _MORE_GROUPS[settings.method].format(file=settings.file)
        raise_all(f"folds: {line}; {remedy}, or set folds.on_rare: warn" for line in certificate["warnings"])
    for line in [*certificate["warnings"], *joined[:MOST_JOINS]]:
        log(f"warning: folds: {line}")
    write_table(
        folds, folds_path, folds_schema(folds.columns), key=("image_id", "repeat"), record={"split_sha256": digest}
    )
    write_json(certificate_path, certificate)
    write_label_space(label_space, classes_path)


def check_split(entries: pd.DataFrame, settings: Folds, seed: int) -> None:
    """Split images that are not decoded yet, to see whether they can be split.

    Groups that hold the same photograph are not merged, which `make_folds` does.

    Args:
        entries: training rows with image_id, profile, group, label, class_name and the factors, and whether they are
            only trained on where the data says so.
        settings: the `folds` section of the configuration.
        seed: the run's seed.

    Raises:
        UserError: if the user's folds do not fit the images, or there are too few groups.
    """
    rows = entries[["image_id", "profile", "group", "label"]].assign(stratum=_strata(entries, settings))
    rows = rows[_scored(entries)]
    rows = rows.sort_values("image_id", kind="stable").reset_index(drop=True)
    _, folds = _assign_folds(rows, rows["group"], settings, seed)
    raise_all(_faults_with_reasons(folds, settings, []))


def read_folds(folds_path: Path, certificate_path: Path) -> tuple[pd.DataFrame, str]:
    """Read the split and check that it is the certified one.

    Args:
        folds_path: folds/folds.parquet.
        certificate_path: folds/certificate.json.

    Returns:
        The rows of folds.FOLDS, or of WEIGHTED_FOLDS if images have weights, and the split's digest.

    Raises:
        UserError: if a group is in two folds, or the table is not the one that was certified.
    """
    folds = read_table(folds_path, folds_schema(column_names(folds_path)), key=("image_id", "repeat"))
    if folds.empty:
        raise UserError(f"{folds_path}: holds no rows; run your command again with `-R folds` to make it anew")
    raise_all(
        f"{folds_path}: {fault}"
        for fault in split_faults(folds, 0, "run your command again with `-R folds` to make it anew")
    )
    digest, certificate = split_sha256(folds), read_json(certificate_path)
    if not isinstance(certificate, dict) or certificate.get("split_sha256") != digest:
        raise UserError(
            f"{folds_path}: is not the split that {certificate_path} certifies; to use folds of your own give them as "
            "folds.file, or run your command again with `-R folds` to make them anew"
        )
    if certificate.get("train_only") != train_only_counts(folds):
        raise UserError(
            f"{certificate_path}: what it says of train_only images is not so in {folds_path}; run your command again "
            "with `-R folds` to make them anew"
        )
    return folds, digest


def folds_schema(columns: Iterable[str]) -> pa.Schema:
    """The schema of a split with these columns: WEIGHTED_FOLDS if weights are among them, else FOLDS."""
    return WEIGHTED_FOLDS if WEIGHT in columns else FOLDS


def split_sha256(folds: pd.DataFrame) -> str:
    """Digest of a split: of image, profile, group, label, repeat, fold and weight (if any) of rows, in any order."""
    rows = folds.sort_values(["repeat", "image_id"])
    names = ["image_id", "profile", "group", "label", "repeat", "fold", *([WEIGHT] if WEIGHT in folds else [])]
    columns = (rows[name].astype(str).tolist() for name in names)
    return sha256_lines("\t".join(values) for values in zip(*columns, strict=True))


def split_faults(folds: pd.DataFrame, count: int, remedy: str) -> list[str]:
    """What is wrong with a split: groups or profiles in two folds of one repeat, folds without images.

    Args:
        folds: rows of folds.FOLDS, at least one.
        count: the expected number of folds; 0 takes the largest fold number as the last one.
        remedy: what to do about a fold without images.
    """
    faults, scored = train_only_faults(folds), scored_rows(folds)
    for unit in ("group", "profile"):
        spread = scored.groupby(["repeat", unit])["fold"].nunique()
        for (_, name), number in spread[spread > 1].items():
            faults.append(f"{unit} {name} stands in {number} folds of one repeat; put all its images into one fold")
    validated = folds.loc[folds["fold"] >= 0, "fold"]
    empty = sorted(set(range(max(int(folds["fold"].max()) + 1, count))) - set(validated))
    return faults + [f"fold {fold} has no images; {remedy}" for fold in empty]


def fold_rows(folds: pd.DataFrame, fold: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training rows and the validation rows of the member of `fold`, both sorted by image_id.

    In a split that validates nothing (`refit_split.everyone`), `fold` is the number of a network, and each learns from
    all rows.

    Raises:
        UserError: if there is no such fold.
    """
    validation = folds[folds["fold"] == fold]
    if validation.empty:
        if not (folds["fold"] >= 0).any():
            return folds[folds["fold"] != RESERVE].sort_values("image_id"), validation
        raise UserError(f"folds: there is no fold {fold}; the split has folds 0 to {folds['fold'].max()}")
    return training_rows(folds, fold).sort_values("image_id"), validation.sort_values("image_id")


def _faults_with_reasons(folds: pd.DataFrame, settings: Folds, joined: list[str]) -> list[str]:
    """The errors of a new split, with the files that join groups, which may explain them."""
    where = settings.file or "folds"
    faults = split_faults(folds, settings.count, _EMPTY[settings.method])
    return [f"{where}: {line}" for line in [*faults, *joined]] if faults else []


def _joins(manifest: pd.DataFrame) -> list[str]:
    """One line for each file that makes several groups one, with what helps if it should not."""
    return [
        f"{_some(ids, 2)} are one file, so that the groups {_some(groups, 3)} count as one; "
        f"if it shows none of them, leave all copies out: leave_out: [{ids[0]!r}]"
        for ids, groups in joining_files(manifest)
    ]


def _some(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _scored(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each row of a manifest, or of its entries, may be validated or be in the reserve."""
    return ~rows[ONLY] if ONLY in rows else pd.Series(True, index=rows.index)


def _strata(manifest: pd.DataFrame, settings: Folds) -> pd.Series:
    if settings.stratify == "label":
        return manifest["class_name"]
    return manifest[list(settings.stratify)].agg("-".join, axis=1)


def _assign_folds(rows: pd.DataFrame, own_group: pd.Series, settings: Folds, seed: int) -> tuple[str, pd.DataFrame]:
    """The name of the method, and the rows of every repeat and of the reserve, with repeat and fold."""
    kept_out = np.zeros(len(rows), bool)
    if settings.reserve:
        kept_out = draw_reserve(rows, settings.reserve, max(settings.k, 2), seed)
    split = rows[~kept_out]
    method, repeats = _split(split, own_group[~kept_out], settings, seed)
    parts = [split.assign(repeat=number, fold=fold) for number, fold in enumerate(repeats)]
    folds = pd.concat([*parts, rows[kept_out].assign(repeat=0, fold=RESERVE)], ignore_index=True)
    return method, folds.astype({"repeat": "int8", "fold": "int8"})


def _split(rows: pd.DataFrame, own_group: pd.Series, settings: Folds, seed: int) -> tuple[str, list[np.ndarray]]:
    """The name of the method, and for each repeat the fold of every row. `own_group` is the group before merging."""
    if settings.method == "file":
        own = _own_folds(rows.assign(group=own_group), Path(str(settings.file)), settings.k)
        return f"the user's file {settings.file}", [own]
    if settings.method == "holdout":
        name, fold = _balanced(rows, round(1 / settings.fraction), derive(seed, "folds", 0), holdout=True)
        return f"{name}, one part held out", [np.where(fold == 0, 0, UNVALIDATED)]
    repeats = []
    for repeat in range(settings.repeats):
        name, fold = _balanced(rows, settings.k, derive(seed, "folds", repeat))
        repeats.append(fold + repeat * settings.k)
    return name, repeats


def _balanced(rows: pd.DataFrame, k: int, seed: int, holdout: bool = False) -> tuple[str, np.ndarray]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    groups = rows.groupby("group", sort=True)["stratum"]
    fold = np.zeros(len(rows), dtype=np.int64)
    if (groups.nunique() == 1).all():
        strata = groups.first()
        _refuse_too_many_parts(k, groups.ngroups, int(strata.value_counts().max()), "groups", holdout)
        splitter = StratifiedKFold(k, shuffle=True, random_state=seed % 2**32)
        of_group = dict.fromkeys(strata.index, 0)
        for number, chosen in enumerate(_parts(splitter, strata.index, strata)):
            of_group.update(dict.fromkeys(strata.index[chosen], number))
        return "StratifiedKFold over groups", rows["group"].map(of_group).to_numpy()
    _refuse_too_many_parts(k, groups.ngroups, int(rows["stratum"].value_counts().max()), "images", holdout)
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed % 2**32)
    for number, chosen in enumerate(_parts(splitter, rows["image_id"], rows["stratum"], rows["group"])):
        fold[chosen] = number
    return "StratifiedGroupKFold over images", fold


def _refuse_too_many_parts(k: int, groups: int, largest: int, unit: str, holdout: bool) -> None:
    """Raise a UserError with a number of parts that is possible, if there is one.

    Args:
        k: number of parts that are asked for.
        groups: number of groups.
        largest: size of the largest stratum.
        unit: what `largest` counts.
        holdout: whether one part is held out, so that the share of this part is what the user sets.
    """
    most = min(groups, largest)
    if k <= most:
        return
    why = f"{k} parts of {groups} groups leave some part empty"
    if k <= groups:
        why = f"every stratum has fewer than {k} {unit}"
    if groups == 1:
        why, remedy = "all images are of one group, which is never parted", "name a smaller unit as the group"
    elif most < 2:
        remedy = (
            f"every stratum has one of the {unit}, and none can be learnt and scored: add some, or stratify by less"
        )
    else:
        remedy = f"raise folds.fraction to {math.ceil(100 / most) / 100}" if holdout else f"lower folds.k to {most}"
    raise UserError(f"folds: {why}; {remedy}")


def _parts(splitter: Any, *columns: Any) -> list[np.ndarray]:
    """Positions of each validation part. sklearn's warning of rare strata is silenced: the certificate names them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return [chosen for _, chosen in splitter.split(*columns)]


def _own_folds(rows: pd.DataFrame, path: Path, k: int) -> np.ndarray:
    table = read_user_table(path)
    unit = next((name for name in ("image_id", "profile", "group") if name in table.columns), None)
    if unit is None or "fold" not in table.columns:
        raise UserError(
            f"{path}: needs the columns group (or profile, or image_id) and fold; it has {', '.join(table.columns)}"
        )
    wrong = table[~table["fold"].isin([str(number) for number in range(k)])]
    raise_all(
        f"{path}, {unit} {name}: fold {fold!r} is not 0 to {k - 1}; correct it, or set folds.k to the number of folds"
        for name, fold in zip(wrong[unit], wrong["fold"], strict=True)
    )
    table = table[[unit, "fold"]].drop_duplicates()
    doubled = table.loc[table[unit].duplicated(), unit]
    raise_all(f"{path}: {unit} {name} stands in several folds; keep one row" for name in doubled.unique())
    missing = sorted(set(rows[unit]) - set(table[unit]))
    known = {look(name): name for name in table[unit]}
    raise_all(
        f"{path}: {unit} {name} of the manifest has no fold; "
        + (f"is it {spelled(known[look(name)])} there? write it alike" if look(name) in known else "add a row")
        for name in missing
    )
    return rows[unit].map(dict(zip(table[unit], table["fold"].astype(int), strict=True))).to_numpy()


@dataclass(frozen=True)
class SplitFiles:
    """The files of the classes and the split: data/classes.json, folds/folds.parquet, folds/certificate.json."""

    classes: Path
    folds: Path
    certificate: Path


FOLDS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("profile", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("stratum", pa.string(), nullable=False),
        pa.field("label", pa.int16(), nullable=False),
        pa.field("repeat", pa.int8(), nullable=False),
        pa.field("fold", pa.int8(), nullable=False),
    ]
)
WEIGHTED_FOLDS = FOLDS.append(pa.field(WEIGHT, pa.float64(), nullable=False))
