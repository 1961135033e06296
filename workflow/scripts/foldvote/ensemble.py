"""The ensemble: every member's predictions become one vote an image, scored on the true labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.answers import Answer, read_answers
from foldvote.errors import Refusal, refuse_all
from foldvote.files import write_json
from foldvote.folds import read_folds
from foldvote.labels import Scheme, read_scheme
from foldvote.leaderboard import make_leaderboard, read_timings
from foldvote.metrics import score
from foldvote.predictions import Key, Predictions, oof_faults, read_predictions, test_set_faults
from foldvote.tables import PROBABILITY, votes_schema, write_table
from foldvote.textfiles import write_csv
from foldvote.voices import Learnt, own_classes, voices
from foldvote.vote import equal_weights, vote

Floats = npt.NDArray[np.float64]
Members = Mapping[Key, Predictions]


def make_ensemble(
    *,
    oof_paths: Sequence[str | Path],
    test_paths: Sequence[str | Path],
    timing_paths: Sequence[str | Path],
    folds_path: str | Path,
    certificate_path: str | Path,
    classes_path: str | Path,
    expected: Mapping[str, int],
    oof_out: str | Path,
    test_out: str | Path | None,
    metrics_out: str | Path,
    weights_out: str | Path,
    leaderboard_out: str | Path,
    answers: str | Path | None = None,
    id_column: str = "ImageID",
    answer_column: str = "ans",
    answer: Answer = "code",
) -> None:
    """Check all predictions, vote, score and write the results; on any fault nothing is written.

    A member's probabilities are the mean over its views; a model's the mean over its folds (of a test image) or
    repeats (of a train image); the ensemble's the mean over voices, each with the same weight. A model is a voice;
    those of some factors multiply to one (foldvote.voices), and are scored on the classes of their factors.

    Args:
        oof_paths: `<results>/oof/model=<m>/fold=<k>/predictions.parquet` of every member.
        test_paths: the same of the test images; empty when there are none.
        timing_paths: `<results>/timings/<stage>/model=<m>/fold=<k>.json`.
        folds_path: the split, tables.FOLDS.
        certificate_path: its certificate.
        classes_path: `data/classes.json`.
        expected: number of folds of each model.
        oof_out: ensemble/oof.parquet, a row a validated train image in the order of the split; `fold` is that of the
            first repeat.
        test_out: ensemble/test.parquet, a row a test image in the order of the first member's predictions; None when
            there is no test set.
        metrics_out: ensemble/metrics.json.
        weights_out: ensemble/weights.json, the weight of each voice; their sum is 1.
        leaderboard_out: leaderboard.csv.
        answers: CSV with the true answers of the test images; only scored, never learnt from.
        id_column: its column of image ids.
        answer_column: its column of answers.
        answer: whether these are class codes or class names.

    Raises:
        Refusal: if predictions are missing, surplus, or do not fit each other, the split or the answers.
    """
    scheme = read_scheme(classes_path)
    folds, digest = read_folds(Path(folds_path), Path(certificate_path))
    oof, faults = read_predictions(oof_paths, "oof", expected, scheme.classes, digest)
    test, more = read_predictions(test_paths, "test", expected if test_out else {}, scheme.classes, digest)
    faults += oof_faults(oof, folds, expected) + more + test_set_faults(test, oof)
    truth = None
    try:
        timings = read_timings(timing_paths)
        if answers is not None and test:
            columns = {"id_column": id_column, "answer_column": answer_column, "answer": answer}
            ids = next(iter(test.values())).ids
            truth = read_answers(answers, ids.tolist(), "the test set", scheme.classes, **columns)
    except Refusal as refusal:
        faults += refusal.faults
    refuse_all(faults)

    rows, learnt = _validated(folds), {model: member.record.get("factors") for (model, _), member in oof.items()}
    labels, by_model = rows["label"].to_numpy(), _oof_by_model(oof, pd.Index(rows["image_id"]))
    spoken = voices(by_model, learnt, scheme)
    weights = equal_weights(spoken)
    votes = vote(np.stack(list(spoken.values())), weights.values())
    metrics: dict[str, Any] = {"images": len(rows), "classes": list(scheme.classes)}
    metrics["oof"] = _scores(labels, votes, by_model | spoken, learnt, scheme)
    metrics["oof"]["members"] = _member_scores(oof, rows, learnt, scheme)
    record = {"split_sha256": digest, "weights": weights, "members": _weights_of_members(oof)}
    write_table(
        _votes(rows, votes, scheme), oof_out, votes_schema(scheme.classes, labelled=True), ("image_id",), record
    )
    if test_out is not None:
        ids, by_model = next(iter(test.values())).ids, _test_by_model(test)
        spoken = voices(by_model, learnt, scheme)
        votes = vote(np.stack(list(spoken.values())), weights.values())
        frame = _votes(pd.DataFrame({"image_id": ids}), votes, scheme)
        write_table(frame, test_out, votes_schema(scheme.classes, labelled=False), ("image_id",), record)
        metrics["test_images"] = len(ids)
        if truth is not None:
            metrics["test"] = _scores(truth, votes, by_model | spoken, learnt, scheme)
    write_json(weights_out, weights)
    write_json(metrics_out, metrics)
    write_csv(make_leaderboard(metrics, timings), leaderboard_out)


def _validated(folds: pd.DataFrame) -> pd.DataFrame:
    """A row an image that some fold validates, with the fold of its first repeat."""
    rows = folds[folds["fold"] >= 0].sort_values("repeat", kind="stable").drop_duplicates("image_id")
    return rows[["image_id", "profile", "label", "fold"]].reset_index(drop=True)


def _oof_by_model(members: Members, images: pd.Index) -> dict[str, Floats]:
    """Each model's probabilities of shape (images, classes): the mean over the repeats that predicted an image."""
    by_model: dict[str, Floats] = {}
    for model in sorted({model for model, _ in members}):
        own = [member for key, member in members.items() if key[0] == model]
        total = np.zeros((len(images), own[0].probabilities.shape[1]))
        times = np.zeros((len(images), 1))
        for member in own:
            place = images.get_indexer(member.ids)
            total[place] += member.probabilities
            times[place] += 1
        by_model[model] = total / times
    return by_model


def _test_by_model(members: Members) -> dict[str, Floats]:
    """Each model's probabilities of shape (images, classes): the mean over its folds."""
    ids = next(iter(members.values())).ids
    by_model = {}
    for model in sorted({model for model, _ in members}):
        own = [member for key, member in members.items() if key[0] == model]
        by_model[model] = vote(np.stack([member.probabilities[member.ids.get_indexer(ids)] for member in own]))
    return by_model


def _scores(
    labels: npt.NDArray[np.integer], votes: Floats, by_model: Mapping[str, Floats], learnt: Learnt, scheme: Scheme
) -> dict[str, Any]:
    models = {model: _own_score(labels, own, learnt.get(model), scheme) for model, own in by_model.items()}
    return {"ensemble": score(labels, votes, scheme), "models": models}


def _own_score(
    labels: npt.NDArray[np.integer], probabilities: Floats, factors: Sequence[str] | None, scheme: Scheme
) -> dict[str, Any]:
    """The score of a model on the classes that it knows; of one of some factors, with their names."""
    if not factors:
        return score(labels, probabilities, scheme)
    own, own_probabilities = own_classes(probabilities, factors, scheme)
    return score(scheme.restricted(factors)[1][labels], own_probabilities, own) | {"factors_learnt": list(factors)}


def _member_scores(members: Members, rows: pd.DataFrame, learnt: Learnt, scheme: Scheme) -> dict[str, dict[str, Any]]:
    """The score of each member on the validation images of its own fold, by model and fold."""
    labels = rows.set_index("image_id")["label"]
    scores: dict[str, dict[str, Any]] = {}
    for (model, fold), member in members.items():
        own = _own_score(labels[member.ids].to_numpy(), member.probabilities, learnt.get(model), scheme)
        scores.setdefault(model, {})[str(fold)] = own
    return scores


def _weights_of_members(members: Members) -> dict[str, dict[str, str]]:
    """The SHA-256 of each member's weights, by model and fold: the provenance of a vote."""
    digests: dict[str, dict[str, str]] = {}
    for (model, fold), member in members.items():
        digests.setdefault(model, {})[str(fold)] = member.record["weights_sha256"]
    return digests


def _votes(rows: pd.DataFrame, probabilities: Floats, scheme: Scheme) -> pd.DataFrame:
    predicted = probabilities.argmax(axis=1)
    votes = pd.DataFrame(probabilities, columns=[PROBABILITY + name for name in scheme.classes])
    votes["prediction"] = predicted
    votes["prediction_name"] = [scheme.classes[code] for code in predicted]
    return pd.concat([rows.reset_index(drop=True), votes], axis=1)
