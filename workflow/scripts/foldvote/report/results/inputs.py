"""All that a finished run knows of itself, read together: what a report shows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.config.data import NumericFactor
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
from foldvote.training.history import HISTORY

Floats = npt.NDArray[np.float64]
_TEXTS = ("kind", "model", "fold", "slice", "value", "calibration")
_OF_MANIFEST = ("image_id", "path", "sha256", "corrected")


@dataclass(frozen=True)
class RunFiles:
    """Where a finished run lies; the sequences have a file a member, under `model=<m>/fold=<k>`."""

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
    """A finished run as tables.

    Attributes:
        scheme: classes and factors.
        certificate: `folds/certificate.json`.
        rows: a row a validated train image, in the order of ensemble/oof.parquet: image_id, profile, label, fold,
            prediction (codes), path, sha256, corrected, and the column of
            `numeric`.
        probabilities: of the vote after its calibration, shape (images, classes).
        opinions: a row an image and member that never saw it: place (in `rows`), model, fold, said (a class, or the
            levels of the factors that the model learns), confidence (mean over its views).
        metrics: `ensemble/metrics.json`.
        vote: `ensemble/weights.json`.
        board, slices, reliability: the CSV files, numbers as numbers.
        issues: rows of LABEL_ISSUES.
        histories, sidecars: by model and fold.
        devices: what the networks ran on.
        data_sha256: of the training images.
        numeric: the factor with a number behind it, where there is one.
    """

    scheme: LabelSpace
    certificate: dict[str, Any]
    rows: pd.DataFrame
    probabilities: Floats
    opinions: pd.DataFrame
    metrics: dict[str, Any]
    vote: dict[str, Any]
    board: pd.DataFrame
    slices: pd.DataFrame
    reliability: pd.DataFrame
    issues: pd.DataFrame
    histories: dict[MemberKey, pd.DataFrame]
    sidecars: dict[MemberKey, dict[str, Any]]
    devices: tuple[str, ...]
    data_sha256: str
    numeric: NumericFactor | None = None

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The class that the vote gives each image."""
        return self.rows["prediction"].to_numpy(np.int64)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The true class of each image."""
        return self.rows["label"].to_numpy(np.int64)

    def chance_of(self, codes: npt.NDArray[np.int64]) -> Floats:
        """The vote's probability of one class an image: shape (images,)."""
        return self.probabilities[np.arange(len(codes)), codes]


def read_run(files: RunFiles, numeric: NumericFactor | None = None) -> RunResults:
    """Read and check everything.

    Args:
        files: where it lies.
        numeric: the factor with a number behind it, where there is one.

    Raises:
        UserError: if a file is missing or damaged, or two were made from different data, splits or weights.
    """
    scheme = read_label_space(files.classes)
    _, digest = read_folds(files.folds, files.certificate)
    certificate, data = read_json(files.certificate), read_record(files.manifest)["data_sha256"]
    sidecars = {member_of(path): read_json(path) for path in files.sidecars}
    made_from = read_record(files.votes)
    raise_all(_strange(files, certificate, digest, data, made_from, sidecars))
    manifest = read_table(files.manifest)
    wanted = [*_OF_MANIFEST, *([numeric.column] if numeric else [])]
    known = manifest[[name for name in wanted if name in manifest]]
    votes = read_table(files.votes, votes_schema(scheme.classes, labelled=True), key=("image_id",))
    rows = votes[["image_id", "profile", "label", "fold", "prediction"]].merge(known, on="image_id", how="left")
    return RunResults(
        scheme=scheme,
        certificate=certificate,
        rows=rows,
        probabilities=votes[[PROBABILITY + name for name in scheme.classes]].to_numpy(np.float64),
        opinions=_opinions(files.oof, rows, scheme, digest),
        metrics=read_json(files.metrics),
        vote=read_json(files.weights),
        board=read_numbers(files.leaderboard),
        slices=read_numbers(files.slices),
        reliability=read_numbers(files.reliability),
        issues=read_table(files.issues, LABEL_ISSUES, key=("rank",)),
        histories={member_of(path): read_table(path, HISTORY, key=("epoch",)) for path in sorted(files.histories)},
        sidecars=dict(sorted(sidecars.items())),
        devices=tuple(sorted({str(read_json(path).get("device", "unknown")) for path in files.timings})),
        data_sha256=data,
        numeric=numeric,
    )


def read_numbers(path: Path) -> pd.DataFrame:
    """One of our own CSV files: names as texts, everything else as numbers, empty cells as NaN."""
    frame = read_csv(path, empty=True)
    numbers = [name for name in frame.columns if name not in _TEXTS]
    return frame.assign(**{name: pd.to_numeric(frame[name].replace("", None)) for name in numbers})


def _strange(
    files: RunFiles,
    certificate: Mapping[str, Any],
    digest: str,
    data: str,
    made_from: Mapping[str, Any],
    sidecars: Mapping[MemberKey, Mapping[str, Any]],
) -> list[str]:
    """Lines where two files are of different runs."""
    faults = []
    if certificate["data_sha256"] != data:
        faults.append(f"{files.certificate}: is of other images than the manifest holds; run `snakemake -R folds`")
    voters = {(model, int(fold)): sha for model, own in made_from["members"].items() for fold, sha in own.items()}
    if made_from["split_sha256"] != digest or voters != {key: own["sha256"] for key, own in sidecars.items()}:
        faults.append(f"{files.votes}: was made from another split or other weights; run `snakemake -R ensemble`")
    return faults


def _opinions(paths: Sequence[Path], rows: pd.DataFrame, scheme: LabelSpace, digest: str) -> pd.DataFrame:
    """What each member says of the images that it never saw."""
    ids = pa.array(rows["image_id"], pa.string())
    expected = Counter(model for model, _ in map(member_of, paths))
    records, faults = sound_records(paths, "oof", expected, scheme.classes, digest)
    raise_all(faults)
    parts = []
    for path, record in records.items():
        member = read_predictions(path, record, scheme.classes)
        place = positions_in(member.ids, ids)
        if (place < 0).any():
            raise UserError(f"{path}: holds images that the vote lacks; run `snakemake -R ensemble`")
        own, said = own_classes(member.mean, record.get("factors"), scheme)
        codes = said.argmax(axis=1)
        parts.append(
            pd.DataFrame(
                {
                    "place": place,
                    "model": member.model,
                    "fold": member.fold,
                    "said": np.asarray(own.classes, dtype=object)[codes],
                    "confidence": said[np.arange(len(said)), codes],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
