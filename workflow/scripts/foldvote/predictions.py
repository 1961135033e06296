"""The members' prediction files: read, checked against each other and against the split, views averaged."""

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from foldvote.answers import id_faults, named
from foldvote.errors import Refusal, refuse_all
from foldvote.tables import LOGIT, predictions_schema, read_record, read_table
from foldvote.vote import softmax, vote

Key = tuple[str, int]
_PLACE = re.compile(r"model=([^/]+)/fold=(\d+)(?:/|\.json$)")
_NEEDED = ("model", "fold", "split", "split_sha256", "data_sha256", "classes", "weights_sha256", "views")


@dataclass(frozen=True)
class Predictions:
    """What one member, a trained (model, fold), said of its images.

    Attributes:
        model: name of the model.
        fold: its fold.
        path: the predictions file.
        record: the file's provenance.
        ids: image ids, each once, in the file's order.
        labels: label of each image as float64, NaN where unknown, shape (images,).
        probabilities: mean over the views, float64 of shape (images, classes).
    """

    model: str
    fold: int
    path: Path
    record: dict[str, Any]
    ids: pd.Index
    labels: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]


def member_of(path: str | Path) -> Key:
    """Model and fold that a path names: `.../model=lite0/fold=3/...` gives ("lite0", 3).

    Raises:
        Refusal: if the path names none.
    """
    found = _PLACE.search(Path(path).as_posix())
    if found is None:
        raise Refusal(f"{path}: does not lie in a folder model=<name>/fold=<number>; move it there")
    return found[1], int(found[2])


def read_predictions(
    paths: Sequence[str | Path],
    split: str,
    expected: Mapping[str, int],
    classes: Sequence[str],
    split_sha256: str,
) -> tuple[dict[Key, Predictions], list[str]]:
    """Read all predictions of one split; what is wrong comes back as lines, so that all can be told at once.

    Args:
        paths: predictions files; one that does not exist counts as a missing member.
        split: `oof` or `test`.
        expected: number of folds of each model.
        classes: class names in the order of their codes.
        split_sha256: digest of the certified folds.

    Returns:
        The predictions without a fault by (model, fold), sorted; and the faults.
    """
    records: dict[Path, dict[str, Any]] = {}
    faults = _presence_faults(paths, split, expected)
    for path in sorted(Path(path) for path in paths if Path(path).exists()):
        try:
            record = read_record(path)
            wrong = _record_faults(path, record, split, classes, split_sha256)
        except Refusal as refusal:
            wrong = list(refusal.faults)
        if not wrong:
            records[path] = record
        faults += wrong
    faults += _differing(records, "data_sha256")
    for model in expected:
        own = {path: record for path, record in records.items() if record["model"] == model}
        faults += _differing(own, "views")
    members = {}
    for path, record in records.items():
        try:
            members[record["model"], record["fold"]] = _read_one(path, record, classes)
        except Refusal as refusal:
            faults += refusal.faults
    return dict(sorted(members.items())), faults


def read_member(path: Path, split: str, classes: Sequence[str], split_sha256: str) -> Predictions:
    """Read the predictions of one member alone.

    Args:
        path: its predictions file; the others as in `read_predictions`.

    Raises:
        Refusal: for every fault of the file.
    """
    record = read_record(path)
    refuse_all(_record_faults(path, record, split, classes, split_sha256))
    return _read_one(path, record, classes)


def oof_faults(members: Mapping[Key, Predictions], folds: pd.DataFrame, expected: Mapping[str, int]) -> list[str]:
    """Check out-of-fold predictions against the split.

    Args:
        members: as `read_predictions` gives them.
        folds: rows of tables.FOLDS.
        expected: number of folds of each model.

    Returns:
        A line for every member that lacks images of its fold, has others or labels them differently, and one for train
        images that no fold validates (a hold-out, which has one fold, leaves most of them out and is fine).
    """
    validated = folds[folds["fold"] >= 0]
    number = validated["fold"].nunique()
    faults = [
        f"model {model} has {count} folds, but the split has {number}; run `snakemake` again with one configuration"
        for model, count in expected.items()
        if count != number
    ]
    left_out = sorted(set(folds["image_id"]) - set(validated["image_id"]))
    if left_out and number > 1:
        faults.append(
            f"folds: {len(left_out)} train images are in no fold and get no prediction: {named(left_out)}; "
            "run `snakemake -R folds` to split anew"
        )
    for (_, fold), member in members.items():
        own, again = validated[validated["fold"] == fold], f"run `snakemake -R {member.path}`"
        faults += id_faults(member.path, member.ids.tolist(), own["image_id"].tolist(), f"fold {fold}", again)
        label = pd.Series(own["label"].to_numpy(dtype=np.float64), index=pd.Index(own["image_id"]))
        known = member.ids.isin(label.index)
        differing = member.ids[known][label.reindex(member.ids[known]).to_numpy() != member.labels[known]]
        if len(differing):
            faults.append(
                f"{member.path}: {len(differing)} images have another label than in folds.parquet: "
                f"{named(differing)}; {again}"
            )
    return faults


def test_set_faults(members: Mapping[Key, Predictions], oof: Mapping[Key, Predictions]) -> list[str]:
    """Check test predictions: every member saw the same images, with the weights that made its OOF predictions."""
    faults = []
    for key, member in members.items():
        first, again = next(iter(members.values())), f"run `snakemake -R {member.path}`"
        faults += id_faults(member.path, member.ids.tolist(), first.ids.tolist(), first.path, again)
        if key in oof and oof[key].record["weights_sha256"] != member.record["weights_sha256"]:
            faults.append(f"{member.path}: predicted with other weights than {oof[key].path}; {again}")
    return faults


def _presence_faults(paths: Sequence[str | Path], split: str, expected: Mapping[str, int]) -> list[str]:
    what = "out-of-fold" if split == "oof" else "test"
    needed = {(model, fold) for model, count in expected.items() for fold in range(count)}
    found = Counter(member_of(path) for path in paths if Path(path).exists())
    absent = {member_of(path) for path in paths if not Path(path).exists()}
    faults = [
        f"model {model} fold {fold}: its {what} predictions are missing; see why in its log, then run `snakemake` again"
        for model, fold in sorted((needed | absent) - set(found))
    ]
    faults += [
        f"model {model} fold {fold}: its {what} predictions are not part of this run; delete them"
        for model, fold in sorted(set(found) - needed)
    ]
    return faults + [
        f"model {model} fold {fold}: {count} files of {what} predictions; keep one"
        for (model, fold), count in sorted(found.items())
        if count > 1
    ]


def _record_faults(
    path: Path, record: dict[str, Any], split: str, classes: Sequence[str], split_sha256: str
) -> list[str]:
    absent = [name for name in _NEEDED if name not in record]
    if absent:
        return [f"{path}: its provenance record lacks {', '.join(absent)}; run `snakemake -R {path}`"]
    faults = []
    claimed, place = (record["model"], record["fold"], record["split"]), (*member_of(path), split)
    if claimed != place:
        texts = [f"{kind} predictions of model {model} fold {fold}" for model, fold, kind in (claimed, place)]
        faults.append(f"{path}: holds the {texts[0]}, not the {texts[1]}; run `snakemake -R {path}`")
    if record["split_sha256"] != split_sha256:
        faults.append(
            f"{path}: was made with another split ({record['split_sha256'][:12]}) than the certified one "
            f"({split_sha256[:12]}); run `snakemake -R {path}`"
        )
    columns = [name.removeprefix(LOGIT) for name in pq.read_schema(path).names if name.startswith(LOGIT)]
    for where, found in (("record", record["classes"]), ("columns", columns)):
        if list(found) != list(classes):
            faults.append(f"{path}: in its {where} {_class_difference(found, classes)}; run `snakemake -R {path}`")
    return faults


def _class_difference(found: Sequence[str], classes: Sequence[str]) -> str:
    if len(found) != len(classes):
        return f"are {len(found)} classes instead of the {len(classes)} of classes.json"
    place = next(code for code, name in enumerate(classes) if found[code] != name)
    kind = "the class order differs" if sorted(found) == sorted(classes) else "the classes differ"
    return f"{kind}: class {place} is {found[place]!r}, but {classes[place]!r} in classes.json"


def _differing(records: Mapping[Path, dict[str, Any]], name: str) -> list[str]:
    """Lines for the files whose record says something else under `name` than most of them do."""

    def value(record: dict[str, Any]) -> Hashable:
        return tuple(sorted(record[name])) if isinstance(record[name], list) else record[name]

    def text(said: Hashable) -> str:
        return ", ".join(said) if isinstance(said, tuple) else str(said)[:12]

    common = Counter(value(record) for record in records.values()).most_common(1)
    return [
        f"{path}: {name} is {text(value(record))}, but {text(common[0][0])} for most members; run `snakemake -R {path}`"
        for path, record in records.items()
        if value(record) != common[0][0]
    ]


def _read_one(path: Path, record: dict[str, Any], classes: Sequence[str]) -> Predictions:
    frame = read_table(path, predictions_schema(classes), key=("image_id", "view"))
    views, again = sorted(record["views"]), f"run `snakemake -R {path}`"
    found = sorted(frame["view"].unique())
    if found != views:
        raise Refusal(f"{path}: holds the views {named(found)}, but its record says {named(views)}; {again}")
    counts = frame["image_id"].value_counts(sort=False)
    partial = counts.index[counts != len(views)]
    if len(partial):
        raise Refusal(f"{path}: {len(partial)} images lack one of their {len(views)} views: {named(partial)}; {again}")
    image, ids = pd.factorize(frame["image_id"])
    view = pd.Index(views).get_indexer(pd.Index(frame["view"]))
    probabilities = np.empty((len(views), len(ids), len(classes)))
    probabilities[view, image] = softmax(frame[[LOGIT + name for name in classes]].to_numpy())
    labels = np.empty(len(ids))
    labels[image] = frame["label"].to_numpy(dtype=np.float64, na_value=np.nan)
    return Predictions(record["model"], record["fold"], path, record, pd.Index(ids), labels, vote(probabilities))
