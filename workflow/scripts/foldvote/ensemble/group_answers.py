"""One answer per group: the vote's probabilities of a group's images become those of the group.

How they do is chosen like the ensemble method: each kind of pooling is scored with the group as the unit, on groups
that it was not fitted on. The images are those of the reserve, which the vote of all members predicts, or else the
out-of-fold predictions. These are of single members, so that there the mean is left only for what is surely better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.config.ensemble import Submission, split_end
from foldvote.config.metric_names import metric_key
from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.ensemble.class_offsets import offsets_of, predict_classes
from foldvote.ensemble.group_parts import outer_folds
from foldvote.ensemble.leaderboard import DEFAULT
from foldvote.ensemble.pooling import POOLINGS, fit_pooling, pool
from foldvote.ensemble.row_scores import intervals_of, known_value
from foldvote.ensemble.selection import (
    MethodResult,
    NestedPredictions,
    check_defined,
    choose_method,
    compare_results,
    surely_better,
)
from foldvote.errors import raise_all
from foldvote.evaluation.metric_bootstrap import Scored, score_rows
from foldvote.evaluation.metric_registry import Answers, Metric, find_metric
from foldvote.evaluation.vote_table import PROBABILITY, groups_schema, votes_frame, votes_schema
from foldvote.io.files import read_json, write_json
from foldvote.io.parquet import read_record, read_table, write_table
from foldvote.splits.folds import read_folds
from foldvote.submission.answer_units import groups_of_test, label_faults
from foldvote.submission.answers import read_answers

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer]
_DRAWS = 500  # behind each choice on the groups of the other folds


@dataclass(frozen=True)
class GroupInputs:
    """The files that are read.

    Attributes:
        oof: ensemble/oof.parquet.
        weights: ensemble/weights.json.
        manifest: of the training images.
        folds: the split.
        certificate: its certificate.
        classes: data/classes.json.
        reserve: ensemble/reserve.parquet; None where there is no reserve.
        test: ensemble/test.parquet; None where there are no test images.
        test_manifest: their manifest.
        answers: CSV with the true class of each test group, if known; used for scores only.
    """

    oof: Path
    weights: Path
    manifest: Path
    folds: Path
    certificate: Path
    classes: Path
    reserve: Path | None = None
    test: Path | None = None
    test_manifest: Path | None = None
    answers: Path | None = None


@dataclass(frozen=True)
class Scoring:
    """How predictions of groups are scored.

    Attributes:
        label_space: the classes.
        score: by which the kind is chosen, a metric's name in tables.
        metrics: what is scored beside bootstrap.METRICS, with `score` unless it is one of these.
        draws: number of bootstrap draws.
        seed: the run's seed.
    """

    label_space: LabelSpace
    score: str
    metrics: Sequence[Metric]
    draws: int
    seed: int


@dataclass(frozen=True)
class Grouped:
    """Images in the order of their groups, and the groups in the order of their names.

    Attributes:
        names: of the groups.
        starts: the first image of each group, int64 (groups,).
        probabilities: of the images, float64 (images, classes).
        table: the rows of the images.
    """

    names: list[str]
    starts: npt.NDArray[np.int64]
    probabilities: Floats
    table: pd.DataFrame

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """The number of images of each group."""
        return np.diff(self.starts, append=len(self.table))

    def of_groups(self, column: str) -> npt.NDArray[Any]:
        """The value of each group, where it is the same for all of its images."""
        return self.table[column].to_numpy()[self.starts]

    def chosen(self, groups: npt.NDArray[np.bool_]) -> "Grouped":
        """Some of the groups."""
        rows, sizes = np.repeat(groups, self.sizes), self.sizes[groups]
        names = [name for name, taken in zip(self.names, groups, strict=True) if taken]
        return Grouped(names, np.cumsum(sizes) - sizes, self.probabilities[rows], self.table[rows])


@dataclass(frozen=True)
class PoolingComparison:
    """How the kinds of pooling compare.

    Attributes:
        results: by kind, in order of complexity, with scores over groups.
        chosen: the kind that is used.
        crossed: the groups as predicted by the kind that the other folds favour, fitted there.
    """

    results: dict[str, MethodResult]
    chosen: str
    crossed: NestedPredictions


def grouped(votes: pd.DataFrame, groups: Mapping[str, str], classes: list[str]) -> Grouped:
    """Put images in the order of groups and ids, so that no result depends on the order of the rows.

    Args:
        votes: rows with image_id and the probabilities, as in `votes_schema`.
        groups: the group of each image_id.
        classes: class names in the order of their codes.
    """
    table = votes.assign(group=votes["image_id"].map(groups)).sort_values(["group", "image_id"], ignore_index=True)
    names, starts = np.unique(table["group"].to_numpy(str), return_index=True)
    probabilities = table[[PROBABILITY + name for name in classes]].to_numpy(np.float64)
    return Grouped(names.tolist(), starts.astype(np.int64), probabilities, table)


def answer_groups(
    inputs: GroupInputs,
    scores_path: Path,
    groups_path: Path | None,
    settings: Submission,
    score: str,
    draws: int,
    pattern: str | None,
    seed: int,
    metrics: Sequence[Metric] = (find_metric(DEFAULT),),
) -> None:
    """Choose how the images of a group become one answer, score it, and answer the test groups.

    Args:
        inputs: the files that are read.
        scores_path: ensemble/group_scores.json.
        groups_path: ensemble/groups.parquet, written where there are test images.
        settings: the `submission` section.
        score: by which the kind is chosen, one of the metrics or of bootstrap.METRICS.
        draws: number of bootstrap draws.
        pattern: what finds the group in the id of a test image; None: it is in the manifest.
        seed: the run's seed.
        metrics: the main metric, and others that the settings name.

    Raises:
        UserError: if a group's images have different classes, a test image has no group, answers are of others, or the
            score is not defined for the groups.
    """
    label_space = read_label_space(inputs.classes)
    end = split_end(read_json(inputs.weights)["kind"])[1]
    known, folds = _labelled(inputs, label_space, seed)
    scoring = Scoring(label_space, metric_key(score), metrics, draws, seed)
    found = compare_poolings(known, folds, settings, scoring, end, on_reserve=inputs.reserve is not None)
    params = found.results[found.chosen].params
    labels, clusters = known.of_groups("label"), known.of_groups("cluster")
    content: dict[str, Any] = {
        "groups": len(known.names),
        "images": len(known.table),
        "predicted_by": "all members" if inputs.reserve else "one member per image",
        "on": "reserve" if inputs.reserve else "out-of-fold predictions",
        "metric": metrics[0].name,
        "chosen": found.chosen,
        "params": params,
        "answers": _with_intervals(found.crossed, labels, clusters, scoring),
        "poolings": _described(found, scoring.score),
    }
    if inputs.test is not None and inputs.test_manifest is not None and groups_path is not None:
        frame, test = answers_of_groups(inputs.test, inputs.test_manifest, pattern, params, label_space)
        content |= {"test_groups": len(frame), "test_images": int(frame["images"].sum())}
        if inputs.answers is not None:
            truth = read_answers(inputs.answers, test.names, "the test groups", label_space.classes, **settings.columns)
            everyone = np.arange(len(truth))
            content["test"] = {
                kind: _with_intervals(_apply(test, result.params), truth, everyone, scoring)
                for kind, result in found.results.items()
            }
        write_table(frame, groups_path, groups_schema(label_space.classes), ("group",), read_record(inputs.test))
    write_json(scores_path, content)


def answers_of_groups(
    votes: Path, manifest: Path, pattern: str | None, params: Mapping[str, Any], label_space: LabelSpace
) -> tuple[pd.DataFrame, Grouped]:
    """The answers of the test groups.

    Args:
        votes: probabilities of the test images, `votes_schema`.
        manifest: the manifest of the test images.
        pattern: what finds the group in the id of a test image; None: it is in the manifest.
        params: a kind of pooling and what it has fitted.
        label_space: the classes.

    Returns:
        The rows of `groups_schema`, sorted by group; and the images in their groups.

    Raises:
        UserError: if a test image has no group.
    """
    images = read_table(manifest)
    groups = dict(zip(images["image_id"], groups_of_test(images, pattern, manifest), strict=True))
    table = read_table(votes, votes_schema(label_space.classes, labelled=False), key=("image_id",))
    test = grouped(table, groups, list(label_space.classes))
    answers = _apply(test, params)
    rows = pd.DataFrame({"group": test.names, "images": test.sizes})
    return votes_frame(rows, answers.probabilities, answers.codes, label_space), test


def write_entry_groups(
    votes: Path, manifest: Path, pattern: str | None, group_scores: Path, classes: Path, path: Path
) -> None:
    """Answer the test groups by another entry of the leaderboard, pooled like the ensemble.

    Args:
        votes: ensemble/rows/<row>.parquet.
        manifest: the manifest of the test images.
        pattern: what finds the group in the id of a test image; None: it is in the manifest.
        group_scores: ensemble/group_scores.json.
        classes: data/classes.json.
        path: written with `groups_schema`.

    Raises:
        UserError: if a test image has no group.
    """
    label_space, params = read_label_space(classes), read_json(group_scores)["params"]
    frame, _ = answers_of_groups(votes, manifest, pattern, params, label_space)
    write_table(frame, path, groups_schema(label_space.classes), ("group",), read_record(votes))


def compare_poolings(
    known: Grouped,
    folds: Codes,
    settings: Submission,
    scoring: Scoring,
    end: str,
    *,
    on_reserve: bool,
) -> PoolingComparison:
    """Score every kind of pooling over groups, and choose one.

    Args:
        known: images with label and cluster, the same for all images of a group; clusters are drawn for intervals.
        folds: the fold of each group, int (groups,); a cluster is in one.
        settings: `pooling`, the kind or auto.
        scoring: how they are scored.
        end: how the vote chooses classes, its `+offsets` or `+expected`; where it has any, they are fitted for groups.
        on_reserve: whether all members predicted each image, as they do test images.

    Raises:
        UserError: if the score is not defined for these groups.
    """
    labels, clusters = known.of_groups("label"), known.of_groups("cluster")
    params = {kind: _fit(known, kind, end) for kind in POOLINGS}
    score, fewer = scoring.score, replace(scoring, draws=min(scoring.draws, _DRAWS))
    fitted = {kind: _apply(known, own) for kind, own in params.items()}
    optimistic = _scored(fitted, labels, clusters, replace(scoring, draws=1))
    nested = {kind: _nested(known, kind, folds, end) for kind in POOLINGS}
    scored = _scored(nested, labels, clusters, scoring)
    check_defined(scored, score)
    results = {
        kind: MethodResult(kind, params[kind], own.points, optimistic[kind].points, own.draws)
        for kind, own in scored.items()
    }

    def choose(found: Mapping[str, Scored]) -> str:
        if settings.pooling != "auto":
            return settings.pooling
        check_defined(found, score)
        compared = {kind: MethodResult(kind, {}, own.points, {}, own.draws) for kind, own in found.items()}
        return choose_method(compared if on_reserve else surely_better(compared, score), score)

    probabilities, codes = np.empty((len(labels), known.probabilities.shape[1])), np.empty(len(labels), np.int64)
    for fold in np.unique(folds):
        out = folds == fold
        rest = {kind: NestedPredictions(own.probabilities[~out], own.codes[~out]) for kind, own in nested.items()}
        favoured = choose(_scored(rest, labels[~out], clusters[~out], fewer))
        probabilities[out], codes[out] = nested[favoured].probabilities[out], nested[favoured].codes[out]
    return PoolingComparison(results, choose(scored), NestedPredictions(probabilities, codes))


def _labelled(inputs: GroupInputs, label_space: LabelSpace, seed: int) -> tuple[Grouped, npt.NDArray[np.int64]]:
    """The images whose labels are known, and the fold of each group.

    Clusters are the groups of the split, in which those that share a photograph are one.
    """
    votes = read_table(
        inputs.reserve or inputs.oof, votes_schema(label_space.classes, labelled=True), key=("image_id",)
    )
    manifest = read_table(inputs.manifest)
    split, _ = read_folds(inputs.folds, inputs.certificate)
    merged = dict(zip(split["image_id"], split["group"], strict=True))
    _, clusters = np.unique(votes["image_id"].map(merged).to_numpy(str), return_inverse=True)
    groups = dict(zip(manifest["image_id"], manifest["group"], strict=True))
    known = grouped(votes.assign(cluster=clusters), groups, list(label_space.classes))
    names = np.asarray(label_space.classes, dtype=object)[known.table["label"].to_numpy(int)]
    raise_all(label_faults(known.table.assign(class_name=names)))
    folds = np.full(len(known.names), -1) if inputs.reserve else known.of_groups("fold")
    return known, outer_folds(folds, known.of_groups("cluster"), seed)


def _fit(known: Grouped, kind: str, end: str) -> dict[str, Any]:
    labels = known.of_groups("label").astype(np.int64)
    params = fit_pooling(kind, known.probabilities, known.starts, labels)
    if end:
        params["offsets"] = offsets_of(end, pool(known.probabilities, known.starts, params), labels)
    return params


def _apply(images: Grouped, params: Mapping[str, Any]) -> NestedPredictions:
    pooled = pool(images.probabilities, images.starts, params)
    return NestedPredictions(pooled, predict_classes(pooled, params.get("offsets")))


def _nested(known: Grouped, kind: str, folds: Codes, end: str) -> NestedPredictions:
    probabilities = np.empty((len(known.names), known.probabilities.shape[1]))
    codes = np.empty(len(known.names), np.int64)
    for fold in np.unique(folds):
        out = folds == fold
        predicted = _apply(known.chosen(out), _fit(known.chosen(~out), kind, end))
        probabilities[out], codes[out] = predicted.probabilities, predicted.codes
    return NestedPredictions(probabilities, codes)


def _scored(
    predicted: Mapping[str, NestedPredictions], labels: Codes, clusters: Codes, scoring: Scoring
) -> dict[str, Scored]:
    """The scores over groups of several predictions, and these in each draw of clusters."""
    answers = {kind: Answers(labels, own.probabilities, own.codes) for kind, own in predicted.items()}
    return score_rows(answers, clusters, scoring.label_space, scoring.metrics, scoring.draws, scoring.seed)


def _with_intervals(predicted: NestedPredictions, labels: Codes, clusters: Codes, scoring: Scoring) -> dict[str, Any]:
    """Scores over groups, and their intervals."""
    scored = _scored({"": predicted}, labels, clusters, scoring)[""]
    return _known(scored.points) | {"intervals": intervals_of(scored.draws, scored.points)}


def _known(points: Mapping[str, float]) -> dict[str, Any]:
    """Scores by metric, None where one is not defined."""
    return {metric: known_value(value) for metric, value in points.items()}


def _described(found: PoolingComparison, score: str) -> dict[str, Any]:
    chosen = found.results[found.chosen]
    return {
        kind: {
            **_known(result.nested),
            "intervals": intervals_of(result.draws, result.nested),
            "optimistic": _known(result.optimistic),
            "params": result.params,
            "against_chosen": compare_results(result, chosen, score)._asdict(),
        }
        for kind, result in found.results.items()
    }
