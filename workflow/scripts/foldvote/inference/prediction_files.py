"""The prediction files of the members: reading, and checks against each other and against the split."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foldvote.errors import UserError, first_few, raise_all
from foldvote.evaluation.probabilities import softmax, weighted_mean
from foldvote.io.ids import id_faults, positions_in
from foldvote.io.parquet import read_columns, read_record, required
from foldvote.io.paths import MemberKey, member_of
from foldvote.splits.reserve import RESERVE
from foldvote.splits.train_only import TRAIN_ONLY

_PIECE = 16_384  # rows per softmax call, which works in float64
_NEEDED = ("model", "fold", "split", "split_sha256", "data_sha256", "classes", "weights_sha256", "views")


@dataclass(frozen=True)
class Predictions:
    """The predictions of one member, a trained (model, fold).

    Attributes:
        model: name of the model.
        fold: fold of the member.
        path: the predictions file.
        record: provenance record of the file.
        ids: image ids, each once, in the order of the file.
        labels: label of each image, float64 (images,), NaN if unknown.
        views: names of the views, sorted.
        probabilities: float32 of shape (views, images, classes).
    """

    model: str
    fold: int
    path: Path
    record: dict[str, Any]
    ids: pa.Array
    labels: npt.NDArray[np.float64]
    views: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """The mean over the views: float64 (images, classes)."""
        return weighted_mean(self.probabilities)


def sound_records(
    paths: Sequence[str | Path],
    split: str,
    expected: Mapping[str, int],
    classes: Sequence[str],
    split_sha256: str,
) -> tuple[dict[Path, dict[str, Any]], list[str]]:
    """Read and check the provenance records of all predictions of one split, without reading the predictions.

    Args:
        paths: predictions files; one that does not exist counts as a missing member.
        split: `oof`, `reserve` or `test`.
        expected: number of folds of each model.
        classes: class names in the order of their codes.
        split_sha256: digest of the certified folds.

    Returns:
        By path the records without a fault, sorted by model and fold; and one line for each fault.
    """
    records: dict[Path, dict[str, Any]] = {}
    faults = _presence_faults(paths, split, expected)
    for path in sorted(Path(path) for path in paths if Path(path).exists()):
        try:
            record = read_record(path)
            wrong = _record_faults(path, record, split, classes, split_sha256)
        except UserError as error:
            wrong = list(error.faults)
        if not wrong:
            records[path] = record
        faults += wrong
    faults += _differing(records, "data_sha256")
    for model in expected:
        faults += _differing({path: own for path, own in records.items() if own["model"] == model}, "views")
    ordered = sorted(records.items(), key=lambda item: (item[1]["model"], item[1]["fold"]))
    return dict(ordered), faults


def read_member(path: Path, split: str, classes: Sequence[str], split_sha256: str) -> Predictions:
    """Read and check the predictions of a single member.

    Args:
        path: the predictions file.
        split: the expected split, `oof`, `reserve` or `test`.
        classes: class names in the order of their codes.
        split_sha256: digest of the certified folds.

    Raises:
        UserError: for every fault of the file.
    """
    return read_predictions(path, sound_record(path, split, classes, split_sha256), classes)


def sound_record(path: Path, split: str, classes: Sequence[str], split_sha256: str) -> dict[str, Any]:
    """Read and check the provenance record of a single member's predictions.

    Args:
        path: the predictions file.
        split: the expected split, `oof`, `reserve` or `test`.
        classes: class names in the order of their codes.
        split_sha256: digest of the certified folds.

    Raises:
        UserError: for every fault of the record.
    """
    record = read_record(path)
    raise_all(_record_faults(path, record, split, classes, split_sha256))
    return record


def fold_count_faults(folds: pd.DataFrame, expected: Mapping[str, int]) -> list[str]:
    """One line for each model with another number of folds than the split, and one for images without a fold.

    A hold-out split has a single fold and may leave images without a fold.

    Args:
        folds: rows of folds.FOLDS.
        expected: number of folds of each model.
    """
    validated = folds[folds["fold"] >= 0]
    number = validated["fold"].nunique()
    faults = [
        f"model {model} has {count} folds, but the split has {number}; run your command again with one configuration"
        for model, count in expected.items()
        if count != number
    ]
    to_validate = folds.loc[~folds["fold"].isin([RESERVE, TRAIN_ONLY]), "image_id"]
    left_out = sorted(set(to_validate) - set(validated["image_id"])) if number > 1 else []
    if left_out:
        faults.append(
            f"folds: {len(left_out)} train images are in no fold and get no prediction: {first_few(left_out)}; "
            "run your command again with `-R folds` to split anew"
        )
    return faults


def labelled_faults(member: Predictions, own: pd.DataFrame, where: str) -> list[str]:
    """Lines for images that a member lacks, other images that it has, and differing labels.

    Args:
        member: out-of-fold predictions of a member, or those of the reserve.
        own: rows of folds.FOLDS that it should predict.
        where: what they are called in a message: `fold 3`.
    """
    again = f"run your command again with `-R {member.path}`"
    expected = pa.array(own["image_id"], pa.string())
    place = positions_in(member.ids, expected)
    if len(place) == len(expected) and (place >= 0).all():
        faults = []
    else:
        wanted = expected.to_pylist()
        faults = id_faults(member.path, member.ids.to_pylist(), wanted, where, again)
    known = place >= 0
    label = own["label"].to_numpy(np.float64)
    differing = np.flatnonzero(known)[label[place[known]] != member.labels[known]]
    if len(differing):
        faults.append(
            f"{member.path}: {len(differing)} images have another label than in folds.parquet: "
            f"{first_few(member.ids.take(pa.array(differing)).to_pylist())}; {again}"
        )
    return faults


def test_set_faults(member: Predictions, first: Predictions) -> list[str]:
    """Lines for test images that differ from those of the first member.

    Args:
        member: test predictions of a member.
        first: test predictions of the first member.
    """
    if len(member.ids) == len(first.ids) and (positions_in(member.ids, first.ids) >= 0).all():
        return []
    again = f"run your command again with `-R {member.path}`"
    return id_faults(member.path, member.ids.to_pylist(), first.ids.to_pylist(), first.path, again)


def weights_faults(member: Predictions, oof_records: Mapping[MemberKey, dict[str, Any]]) -> list[str]:
    """A line where a member's weights differ from those that made its out-of-fold predictions.

    Args:
        member: predictions of a member.
        oof_records: provenance records of the out-of-fold predictions by (model, fold).
    """
    oof = oof_records.get((member.model, member.fold))
    if oof is None or oof["weights_sha256"] == member.record["weights_sha256"]:
        return []
    again = f"run your command again with `-R {member.path}`"
    return [f"{member.path}: predicted with other weights than its out-of-fold predictions; {again}"]


def _presence_faults(paths: Sequence[str | Path], split: str, expected: Mapping[str, int]) -> list[str]:
    what = "out-of-fold" if split == "oof" else split
    needed = {(model, fold) for model, count in expected.items() for fold in range(count)}
    found = Counter(member_of(path) for path in paths if Path(path).exists())
    absent = {member_of(path) for path in paths if not Path(path).exists()}
    faults = [
        f"model {model} fold {fold}: its {what} predictions are missing; see why in its log, then run your command "
        "again"
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
        return [f"{path}: its provenance record lacks {', '.join(absent)}; run your command again with `-R {path}`"]
    faults = []
    claimed, place = (record["model"], record["fold"], record["split"]), (*member_of(path), split)
    if claimed != place:
        texts = [f"{kind} predictions of model {model} fold {fold}" for model, fold, kind in (claimed, place)]
        faults.append(f"{path}: holds the {texts[0]}, not the {texts[1]}; run your command again with `-R {path}`")
    if record["split_sha256"] != split_sha256:
        faults.append(
            f"{path}: was made with another split ({record['split_sha256'][:12]}) than the certified one "
            f"({split_sha256[:12]}); run your command again with `-R {path}`"
        )
    columns = [name.removeprefix(LOGIT) for name in pq.read_schema(path).names if name.startswith(LOGIT)]
    for where, found in (("record", record["classes"]), ("columns", columns)):
        if list(found) != list(classes):
            faults.append(
                f"{path}: in its {where} {_class_difference(found, classes)}; run your command again with `-R {path}`"
            )
    return faults


def _class_difference(found: Sequence[str], classes: Sequence[str]) -> str:
    if len(found) != len(classes):
        return f"are {len(found)} classes instead of the {len(classes)} of classes.json"
    place = next(code for code, name in enumerate(classes) if found[code] != name)
    kind = "the class order differs" if sorted(found) == sorted(classes) else "the classes differ"
    return f"{kind}: class {place} is {found[place]!r}, but {classes[place]!r} in classes.json"


def _differing(records: Mapping[Path, dict[str, Any]], name: str) -> list[str]:
    """One line for each file whose record has another value of `name` than most files have."""

    def value(record: dict[str, Any]) -> Hashable:
        return tuple(sorted(record[name])) if isinstance(record[name], list) else record[name]

    def text(content: Hashable) -> str:
        return ", ".join(content) if isinstance(content, tuple) else str(content)[:12]

    common = Counter(value(record) for record in records.values()).most_common(1)
    return [
        f"{path}: {name} is {text(value(record))}, but {text(common[0][0])} for most members; run your command again "
        f"with `-R {path}`"
        for path, record in records.items()
        if value(record) != common[0][0]
    ]


def read_predictions(path: Path, record: dict[str, Any], classes: Sequence[str]) -> Predictions:
    """Read a predictions file whose provenance record was checked.

    Args:
        path: the predictions file.
        record: its provenance record.
        classes: class names in the order of their codes.

    Raises:
        UserError: if rows or views are missing or repeated, or values are not finite.
    """
    table = read_columns(path, predictions_schema(classes))
    views, again = sorted(record["views"]), f"run your command again with `-R {path}`"
    image_ids, of_view = (table.column(name).combine_chunks() for name in ("image_id", "view"))
    found = sorted(pc.unique(of_view).to_pylist())
    if found != views:
        raise UserError(f"{path}: holds the views {first_few(found)}, but its record says {first_few(views)}; {again}")
    ids = pc.unique(image_ids)
    image, view = positions_in(image_ids, ids), positions_in(of_view, pa.array(views, pa.string()))
    rows = np.bincount(view * len(ids) + image, minlength=len(views) * len(ids)).reshape(len(views), len(ids))
    for wrong, what in ((rows > 1, "stand twice in a view"), (rows < 1, f"lack one of their {len(views)} views")):
        if wrong.any():
            names = ids.take(pa.array(np.flatnonzero(wrong.any(axis=0)))).to_pylist()
            raise UserError(f"{path}: {len(names)} images {what}: {first_few(names)}; {again}")
    columns = [table.column(LOGIT + name) for name in classes]
    probabilities = np.empty((len(views), len(ids), len(classes)), np.float32)
    for start in range(0, len(table), _PIECE):
        logits = np.stack([column.slice(start, _PIECE).to_numpy() for column in columns], axis=1)
        part = slice(start, start + _PIECE)
        probabilities[view[part], image[part]] = softmax(logits)
    labels = np.empty(len(ids))
    labels[image] = table.column("label").to_numpy().astype(np.float64)
    return Predictions(record["model"], record["fold"], path, record, ids, labels, tuple(views), probabilities)


LOGIT = "logit_"


def predictions_schema(classes: Sequence[str]) -> pa.Schema:
    """Schema of a member's predictions: one row per image and view, one float32 logit per class."""
    return pa.schema(
        [
            required("image_id", pa.string()),
            ("profile", pa.string()),
            ("label", pa.int16()),
            required("view", pa.string()),
            *(required(LOGIT + name, pa.float32()) for name in classes),
        ]
    )
