"""The results of a finished run, read together and checked against each other."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.config.layout_facts import NumericFactor
from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.ensemble.candidates import own_classes
from foldvote.errors import UserError, raise_all
from foldvote.evaluation.label_issues import LABEL_ISSUES
from foldvote.evaluation.vote_table import PROBABILITY, votes_schema
from foldvote.inference.prediction_files import read_predictions, sound_records
from foldvote.io.csv_files import read_csv
from foldvote.io.files import read_json
from foldvote.io.ids import positions_in
from foldvote.io.parquet import read_record, read_table
from foldvote.io.paths import MemberKey, member_of
from foldvote.splits.folds import read_folds
from foldvote.training.history import read_history

Floats = npt.NDArray[np.float64]
_TEXT_COLUMNS = ("kind", "model", "fold", "slice", "value", "calibration", "suspicion")
_MANIFEST_COLUMNS = ("image_id", "path", "sha256", "corrected")


@dataclass(frozen=True)
class RunFiles:
    """The files of a finished run; sequences have one file per member, below `model=<m>/fold=<k>`."""

    manifest: Path
    folds: Path
    certificate: Path
    classes: Path
    oof: Sequence[Path]
    histories: Sequence[Path]
    sidecars: Sequence[Path]
    timings: Sequence[Path]
    votes: Path
    metrics: Path
    weights: Path
    slices: Path
    reliability: Path
    issues: Path
    leaderboard: Path


@dataclass(frozen=True)
class RunResults:
    """The results of a finished run as tables.

    Attributes:
        label_space: classes and factors.
        certificate: `folds/certificate.json`.
        rows: one row per validated training image, in the order of ensemble/oof.parquet: image_id, profile, label,
            fold, prediction (codes), path, sha256, corrected, and the column of `numeric`.
        probabilities: of the ensemble after calibration, shape (images, classes).
        member_predictions: one row per image and member that was not trained on its person: position (in `rows`),
            model, fold, predicted (a class, or the levels of the factors that the model learns), probability (mean
            over the views).
        metrics: `ensemble/metrics.json`.
        vote: `ensemble/weights.json`.
        leaderboard, slices, reliability: the CSV files, with numbers as numbers.
        issues: rows of label_issues.LABEL_ISSUES.
        histories, sidecars: by model and fold.
        trainings: the timings of the trainings, by model and fold.
        devices: the devices that the networks ran on.
        data_sha256: digest of the training manifest.
        numeric: the factor with a number behind it, where there is one.
    """

    label_space: LabelSpace
    certificate: dict[str, Any]
    rows: pd.DataFrame
    probabilities: Floats
    member_predictions: pd.DataFrame
    metrics: dict[str, Any]
    vote: dict[str, Any]
    leaderboard: pd.DataFrame
    slices: pd.DataFrame
    reliability: pd.DataFrame
    issues: pd.DataFrame
    histories: dict[MemberKey, pd.DataFrame]
    sidecars: dict[MemberKey, dict[str, Any]]
    trainings: dict[MemberKey, dict[str, Any]]
    devices: tuple[str, ...]
    data_sha256: str
    numeric: NumericFactor | None = None

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The class predicted for each image: int64 (images,)."""
        return self.rows["prediction"].to_numpy(np.int64)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The true class of each image: int64 (images,)."""
        return self.rows["label"].to_numpy(np.int64)

    def probability_of(self, codes: npt.NDArray[np.int64]) -> Floats:
        """The probability of one class per image, given by its code: float64 (images,)."""
        return self.probabilities[np.arange(len(codes)), codes]


def read_run(files: RunFiles, numeric: NumericFactor | None = None) -> RunResults:
    """Read the results of a run and check that they belong together.

    Args:
        files: the files of the run.
        numeric: the factor with a number behind it, where there is one.

    Raises:
        UserError: if a file is missing or damaged, or two files were made from different data, splits or weights.
    """
    label_space = read_label_space(files.classes)
    _, digest = read_folds(files.folds, files.certificate)
    certificate, data = read_json(files.certificate), read_record(files.manifest)["data_sha256"]
    sidecars = {member_of(path): read_json(path) for path in files.sidecars}
    made_from = read_record(files.votes)
    raise_all(_mismatches(files, certificate, digest, data, made_from, sidecars))
    manifest = read_table(files.manifest)
    wanted = [*_MANIFEST_COLUMNS, *([numeric.column] if numeric else [])]
    known = manifest[[name for name in wanted if name in manifest]]
    timings = {path: read_json(path) for path in files.timings}
    votes = read_table(files.votes, votes_schema(label_space.classes, labelled=True), key=("image_id",))
    rows = votes[["image_id", "profile", "label", "fold", "prediction"]].merge(known, on="image_id", how="left")
    return RunResults(
        label_space=label_space,
        certificate=certificate,
        rows=rows,
        probabilities=votes[[PROBABILITY + name for name in label_space.classes]].to_numpy(np.float64),
        member_predictions=_member_predictions(files.oof, rows, label_space, digest),
        metrics=read_json(files.metrics),
        vote=read_json(files.weights),
        leaderboard=read_numbers(files.leaderboard),
        slices=read_numbers(files.slices),
        reliability=read_numbers(files.reliability),
        issues=read_table(files.issues, LABEL_ISSUES, key=("rank",)),
        histories={member_of(path): read_history(path) for path in sorted(files.histories)},
        sidecars=dict(sorted(sidecars.items())),
        trainings={member_of(path): own for path, own in timings.items() if path.parent.parent.name == "train"},
        devices=tuple(sorted({str(own.get("device", "unknown")) for own in timings.values()})),
        data_sha256=data,
        numeric=numeric,
    )


def read_numbers(path: Path) -> pd.DataFrame:
    """Read a CSV file that foldvote wrote: names as text, everything else as numbers, empty cells as NaN."""
    frame = read_csv(path, empty=True)
    numbers = [name for name in frame.columns if name not in _TEXT_COLUMNS]
    return frame.assign(**{name: pd.to_numeric(frame[name].replace("", None)) for name in numbers})


def _mismatches(
    files: RunFiles,
    certificate: Mapping[str, Any],
    digest: str,
    data: str,
    made_from: Mapping[str, Any],
    sidecars: Mapping[MemberKey, Mapping[str, Any]],
) -> list[str]:
    """One line for each pair of files that are from different runs."""
    faults = []
    if certificate["data_sha256"] != data:
        faults.append(
            f"{files.certificate}: is of other images than the manifest holds; run your command again with `-R folds`"
        )
    voters = {(model, int(fold)): sha for model, own in made_from["members"].items() for fold, sha in own.items()}
    if made_from["split_sha256"] != digest or voters != {key: own["sha256"] for key, own in sidecars.items()}:
        faults.append(
            f"{files.votes}: was made from another split or other weights; run your command again with `-R ensemble`"
        )
    return faults


def _member_predictions(
    paths: Sequence[Path], rows: pd.DataFrame, label_space: LabelSpace, digest: str
) -> pd.DataFrame:
    """The out-of-fold predictions of every member, as RunResults.member_predictions."""
    ids = pa.array(rows["image_id"], pa.string())
    expected = Counter(model for model, _ in map(member_of, paths))
    records, faults = sound_records(paths, "oof", expected, label_space.classes, digest)
    raise_all(faults)
    parts = []
    for path, record in records.items():
        member = read_predictions(path, record, label_space.classes)
        position = positions_in(member.ids, ids)
        if (position < 0).any():
            raise UserError(f"{path}: holds images that the vote lacks; run your command again with `-R ensemble`")
        own, probabilities = own_classes(member.mean, record.get("factors"), label_space)
        codes = probabilities.argmax(axis=1)
        parts.append(
            pd.DataFrame(
                {
                    "position": position,
                    "model": member.model,
                    "fold": member.fold,
                    "predicted": np.asarray(own.classes, dtype=object)[codes],
                    "probability": probabilities[np.arange(len(codes)), codes],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
