"""The networks that learnt from all groups on the test images: alone, and together with the vote of the folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.config.ensemble import Submission
from foldvote.config.metric_names import higher_is_better
from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.ensemble.candidates import Candidates, candidates_of, equal_shares, mixture_of
from foldvote.ensemble.model_predictions import ModelPredictions, average_over_folds
from foldvote.ensemble.row_scores import intervals_of, known_value
from foldvote.ensemble.scaling import apply_scaling
from foldvote.errors import raise_all
from foldvote.evaluation.intervals import compare
from foldvote.evaluation.metric_bootstrap import score_rows
from foldvote.evaluation.metric_registry import Answers, Metric
from foldvote.evaluation.vote_table import PROBABILITY, votes_frame, votes_schema
from foldvote.inference.prediction_files import Predictions, sound_record
from foldvote.io.csv_files import read_user_table
from foldvote.io.files import read_json, write_json
from foldvote.io.ids import positions_in
from foldvote.io.parquet import read_record, read_table, write_table
from foldvote.io.paths import member_of
from foldvote.runtime.job_log import log
from foldvote.splits.folds import read_folds
from foldvote.submission.answers import read_answers
from foldvote.submission.sample_matching import matched_ids

Floats = npt.NDArray[np.float64]
VOTE, REFIT, BOTH = "vote", "refit", "vote+refit"
_GROUP_COLUMNS = ("group", "profile")


@dataclass(frozen=True)
class RefitVoteInputs:
    """The files that are read.

    Attributes:
        refit: `<results>/refit/test/model=<m>/fold=<seed>/predictions.parquet` of every network.
        test: ensemble/test.parquet, the vote of the folds.
        weights: ensemble/weights.json, for its calibration.
        folds: refit/folds.parquet.
        certificate: refit/certificate.json.
        classes: data/classes.json.
        manifest: of the test images.
        answers: CSV with the true answers of the test images; only scored; None: not known.
    """

    refit: Sequence[Path]
    test: Path
    weights: Path
    folds: Path
    certificate: Path
    classes: Path
    manifest: Path
    answers: Path | None = None


@dataclass(frozen=True)
class RefitVoteFiles:
    """The files that are written: both with the columns of ensemble/test.parquet, and the scores on the answers."""

    refit: Path
    vote: Path
    scores: Path | None = None


def write_refit_vote(
    inputs: RefitVoteInputs,
    files: RefitVoteFiles,
    voters: int,
    submission: Submission,
    draws: int,
    seed: int,
    metrics: Sequence[Metric],
) -> None:
    """Average the networks of all groups, join them with the vote of the folds, and score both if answers are known.

    The networks of a model are averaged, and the models with equal weights: no labelled image is left on which other
    weights could be fitted. The calibration is that of the submitted vote. In the joint vote each model counts once,
    the vote of the folds for as many models as it is made from.

    Args:
        inputs: the files that are read.
        files: the files that are written.
        voters: number of models of whole classes in the vote of the folds.
        submission: for the columns of the answers.
        draws: number of bootstrap draws.
        seed: the run's seed.
        metrics: the main metric.

    Raises:
        UserError: if files do not belong together, or the answers do not fit the test images.
    """
    label_space = read_label_space(inputs.classes)
    schema = votes_schema(label_space.classes, labelled=False)
    vote = read_table(inputs.test, schema, key=("image_id",))
    _, split_sha256 = read_folds(inputs.folds, inputs.certificate)
    records = {path: sound_record(path, "test", label_space.classes, split_sha256) for path in sorted(inputs.refit)}
    candidates = candidates_of(_averaged(records, vote["image_id"], label_space), label_space)
    scaling = read_json(inputs.weights)["calibration"]
    refit = apply_scaling(mixture_of(candidates, equal_shares(candidates)), scaling)
    of_folds = vote[[PROBABILITY + name for name in label_space.classes]].to_numpy(np.float64)
    share = _share_of_refit(candidates, voters)
    answers = {REFIT: refit, BOTH: (1 - share) * of_folds + share * refit}
    written = {REFIT: files.refit, BOTH: files.vote}
    members = read_record(inputs.test).get("members", {})
    for name, probabilities in answers.items():
        frame = votes_frame(vote[["image_id"]], probabilities, probabilities.argmax(axis=1), label_space)
        record = {"split_sha256": split_sha256, "row": name, "refit": _weights(records)}
        write_table(
            frame, written[name], schema, ("image_id",), record | ({"members": members} if name == BOTH else {})
        )
    if inputs.answers is None or files.scores is None:
        return
    truth = _Truth(inputs, vote["image_id"].tolist(), label_space, submission)
    rows = {VOTE: Answers(truth.labels, of_folds, vote["prediction"].to_numpy(np.int64))}
    rows |= {name: Answers.of(truth.labels, probabilities) for name, probabilities in answers.items()}
    write_json(files.scores, _scores(rows, truth, label_space, draws, seed, metrics))


def _averaged(records: Mapping[Path, dict[str, Any]], ids: pd.Series, label_space: LabelSpace) -> ModelPredictions:
    """The models' means over their networks, of the images of the vote in its order."""
    wanted = pa.array(ids, pa.string())

    def check(member: Predictions) -> list[str]:
        if len(member.ids) == len(wanted) and (positions_in(member.ids, wanted) >= 0).all():
            return []
        return [f"{member.path}: holds other test images than ensemble/test.parquet; run your command again"]

    predictions, faults = average_over_folds(records, wanted, label_space.classes, check)
    raise_all(faults)
    return predictions


def _share_of_refit(candidates: Candidates, voters: int) -> float:
    """The weight of the networks of all groups in the joint vote, where each model counts once."""
    refitted = len(set(candidates.models))
    return refitted / (refitted + voters)


def _weights(records: Mapping[Path, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """SHA-256 of each network's weights, by model and seed."""
    found: dict[str, dict[str, str]] = {}
    for path, record in records.items():
        model, number = member_of(path)
        found.setdefault(model, {})[str(number)] = record["weights_sha256"]
    return found


class _Truth:
    """The true answers of the test images.

    Attributes:
        labels: codes, int64 (images,).
        groups: the code of each image's group, int64 (images,).
        unit: what the groups are: `group`, or `image` where no file names groups of the test images.
    """

    def __init__(
        self, inputs: RefitVoteInputs, ids: list[str], label_space: LabelSpace, submission: Submission
    ) -> None:
        assert inputs.answers is not None
        columns = submission.columns
        self.labels = read_answers(inputs.answers, ids, "the test set", label_space.classes, **columns)
        names = _group_names(inputs, ids, submission.id_column)
        self.unit = "image" if names is None else "group"
        self.groups = pd.factorize(pd.Series(ids if names is None else names))[0].astype(np.int64)


def _group_names(inputs: RefitVoteInputs, ids: list[str], id_column: str) -> list[str] | None:
    """The group of each test image: as the answers or the manifest say; None where neither does for every image."""
    assert inputs.answers is not None
    table = read_user_table(inputs.answers)
    told = read_table(inputs.manifest).set_index("image_id")["group"].reindex(ids)
    for column in _GROUP_COLUMNS:
        if column in table.columns:
            named = matched_ids(table[id_column].tolist(), ids)[0]
            told = pd.Series(table[column].tolist(), index=named).reindex(ids)
            break
    return None if (told.isna() | (told == "")).any() else told.tolist()


def _scores(
    rows: Mapping[str, Answers],
    truth: _Truth,
    label_space: LabelSpace,
    draws: int,
    seed: int,
    metrics: Sequence[Metric],
) -> dict[str, Any]:
    """The scores of each row on the true answers with intervals, and their differences to the vote of the folds."""
    scored = score_rows(rows, truth.groups, label_space, metrics, draws, seed)
    found: dict[str, Any] = {
        "scored_on": "the true answers of the test images; nothing was chosen by them",
        "images": len(truth.labels),
        "groups": int(truth.groups.max()) + 1,
        "drawn": truth.unit,
        "rows": {
            name: {metric: known_value(value) for metric, value in own.points.items()}
            | {"intervals": intervals_of(own.draws, own.points)}
            for name, own in scored.items()
        },
    }
    base = scored[VOTE]
    found["against_vote"] = {
        name: {
            metric: compare(
                own.draws[metric],
                base.draws[metric],
                "higher" if higher_is_better(metric) else "lower",
                points=(own.points[metric], base.points[metric]),
            )._asdict()
            for metric in own.points
            if np.isfinite([own.points[metric], base.points[metric]]).all()
        }
        for name, own in scored.items()
        if name != VOTE
    }
    metric = metrics[0].name
    for name, own in scored.items():
        log(f"on the test answers: {name}: {metric} {own.points[metric]:.4f}")
    return found
