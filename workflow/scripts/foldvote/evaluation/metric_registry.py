"""Metrics by name: their value for some predictions, and what their intervals are computed from.

There are three forms. A metric of sums is a function of sums over images, so that a bootstrap needs only the sums of
each group (see foldvote.evaluation.bootstrap). One of curves is the mean over classes of a function of how the images
rank. Any other metric is computed anew with a weight for each image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from foldvote.config.metric_names import is_own, metric_fault, parts_of_metric
from foldvote.data.label_space import LabelSpace
from foldvote.errors import UserError
from foldvote.evaluation import class_counts, ranking
from foldvote.evaluation.bootstrap import METRICS, group_sums, scores
from foldvote.evaluation.own_metric import read_own_metric

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
MOST_DRAWS_CURVES = 200  # bootstrap draws of a metric of curves
MOST_DRAWS_OWN = 100  # the same of the user's own


@dataclass(frozen=True)
class Answers:
    """Predictions to be scored.

    Attributes:
        labels: true codes, int (images,).
        probabilities: float (images, classes), rows sum to 1.
        predicted: predicted codes, int (images,).
    """

    labels: Codes
    probabilities: Floats
    predicted: Codes

    @classmethod
    def of(cls, labels: Codes, probabilities: Floats, predicted: Codes | None = None) -> "Answers":
        """The same, predicting where nothing else is given the most probable class, of equal ones the lowest code."""
        labels, probabilities = np.asarray(labels), np.asarray(probabilities)
        return cls(labels, probabilities, probabilities.argmax(axis=1) if predicted is None else np.asarray(predicted))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.probabilities.shape[1])


Columns = Callable[[Answers], Iterator[Array]]  # numbers of each image, (images,) each, that are summed
OfSums = Callable[[Array], Array]  # from sums (sets, columns) to the scores (sets,)
Weighted = Callable[[Answers, LabelSpace], Callable[[Array], float]]  # then from weights (images,) to the score


@dataclass(frozen=True)
class Metric:
    """A score of predictions.

    Attributes:
        name: as in tables.
        columns: of a metric of sums: what is summed; None for another one, and for those of bootstrap.METRICS.
        of_sums: of a metric of sums: the score.
        curve: of a metric of curves: the score of one class.
        weighted: of another metric.
        most_draws: bootstrap draws behind an interval, at most; None: as many as the settings say.
        factor: scores the levels of this factor instead of the classes; empty: the classes.
    """

    name: str
    columns: Columns | None = None
    of_sums: OfSums | None = None
    curve: ranking.Curve | None = None
    weighted: Weighted | None = None
    most_draws: int | None = None
    factor: str = ""

    def value(self, answers: Answers, label_space: LabelSpace) -> float:
        """The score; NaN where it is not defined, such as an AUC with images of a single class.

        Args:
            answers: the predictions.
            label_space: their classes.

        Raises:
            UserError: if the user's own metric fails.
        """
        if self.name in METRICS:
            everyone = np.zeros(len(answers.labels), np.int64)
            sums = group_sums(answers.labels, answers.probabilities, everyone, answers.classes, answers.predicted)
            return scores(sums)[self.name]
        own = self.view(answers, label_space)
        if own is None or not len(answers.labels):
            return float("nan")
        answers, label_space = own
        if self.columns is not None and self.of_sums is not None:
            totals = np.array([[column.sum() for column in self.columns(answers)]])
            return float(self.of_sums(totals)[0])
        if self.curve is not None:
            return ranking.mean_of_known(np.array([self.curve(*of.counts()) for of in ranked_classes(answers)]))
        assert self.weighted is not None
        return self.weighted(answers, label_space)(np.ones(len(answers.labels)))

    def value_or_nan(self, answers: Answers, label_space: LabelSpace) -> float:
        """The score; NaN where it is not defined, or where the user's own metric fails, as for images of few classes.

        Args:
            answers: the predictions.
            label_space: their classes.
        """
        try:
            return self.value(answers, label_space)
        except UserError:
            return float("nan")

    def view(self, answers: Answers, label_space: LabelSpace) -> tuple[Answers, LabelSpace] | None:
        """The predictions of the metric's factor; as they are without one, None where the classes lack the factor."""
        if not self.factor:
            return answers, label_space
        if self.factor not in label_space.factors:
            return None
        smaller, of_class = label_space.restricted([self.factor])
        summed = answers.probabilities @ np.eye(len(smaller.classes))[of_class]
        return Answers.of(of_class[answers.labels], summed), smaller


def find_metric(name: str, file: str | Path | None = None) -> Metric:
    """The metric of a name.

    Args:
        name: as in the configuration, such as `macro_f1`, `f_beta-2`, `quadratic_kappa-age` or `my_metric.py`.
        file: where the file of the user's own metric is; None: at the name.

    Raises:
        UserError: if there is no such metric, or the user's file does not hold one.
    """
    if fault := metric_fault(name):
        raise UserError(f"metric: {fault}")
    if is_own(name):
        key, function = read_own_metric(Path(file or name))
        return Metric(key, weighted=partial(_own, function), most_draws=MOST_DRAWS_OWN)
    base, parameter = parts_of_metric(name)
    if base in METRICS:
        return Metric(name)
    if base in _OF_COUNTS:
        return Metric(name, _count_columns, partial(_of_counts, _OF_COUNTS[base]))
    match base:
        case "f_beta":
            return Metric(
                name, _count_columns, partial(_of_counts, partial(class_counts.f_beta, beta=float(parameter)))
            )
        case "top_k":
            return Metric(name, partial(_top_columns, int(parameter)), _of_top)
        case "quadratic_kappa":
            return Metric(name, _kappa_columns, _of_kappa, factor=parameter)
        case "roc_auc" | "roc_auc_weighted":
            return Metric(name, _auc_columns, partial(_of_auc, base == "roc_auc_weighted"))
        case "roc_auc_partial":
            curve: ranking.Curve = partial(ranking.partial_roc_auc, share=float(parameter))
        case _:
            curve = ranking.average_precision
    return Metric(name, curve=curve, most_draws=MOST_DRAWS_CURVES)


def find_metrics(names: Sequence[str], file: str | Path | None = None) -> tuple[Metric, ...]:
    """The metrics of some names, each once, in their order.

    Args:
        names: as in the configuration.
        file: where the file of the user's own metric is.

    Raises:
        UserError: if there is no such metric, or the user's file does not hold one.
    """
    return tuple(find_metric(name, file) for name in dict.fromkeys(names))


def _images(answers: Answers) -> Array:
    return np.ones(len(answers.labels))  # the first column of all sums: bootstrap counts images by it


_OF_COUNTS = {
    "macro_precision": class_counts.macro_precision,
    "macro_recall": class_counts.macro_recall,
    "balanced_accuracy": class_counts.balanced_accuracy,
    "mcc": class_counts.matthews,
}


def _count_columns(answers: Answers) -> Iterator[Array]:
    yield _images(answers)
    hit = answers.labels == answers.predicted
    for code in range(answers.classes):
        of_class = answers.labels == code
        yield (of_class & hit).astype(np.float64)
        yield of_class.astype(np.float64)
        yield (answers.predicted == code).astype(np.float64)


def _of_counts(score: Callable[[class_counts.ClassCounts], Array], sums: Array) -> Array:
    return score(class_counts.ClassCounts(sums[:, 1::3], sums[:, 2::3], sums[:, 3::3]))


def _top_columns(k: int, answers: Answers) -> Iterator[Array]:
    yield _images(answers)
    own = answers.probabilities[np.arange(len(answers.labels)), answers.labels][:, None]
    before = np.arange(answers.classes)[None] < answers.labels[:, None]
    rank = ((answers.probabilities > own) | ((answers.probabilities == own) & before)).sum(axis=1)
    yield (rank < k).astype(np.float64)


def _of_top(sums: Array) -> Array:
    return class_counts.over(sums[:, 1], sums[:, 0])


def _kappa_columns(answers: Answers) -> Iterator[Array]:
    yield _images(answers)
    truth, answer = answers.labels.astype(np.float64), answers.predicted.astype(np.float64)
    yield (truth - answer) ** 2
    yield from (truth, truth**2, answer, answer**2)


def _of_kappa(sums: Array) -> Array:
    """1 - disagreement / disagreement by chance, both weighted by squared distance (Cohen 1968)."""
    images, apart, truth, truth_squared, answer, answer_squared = sums.T
    chance = truth_squared + answer_squared - 2 * class_counts.over(truth * answer, images)
    return 1 - class_counts.over(apart, np.maximum(chance, 0))


def _auc_columns(answers: Answers) -> Iterator[Array]:
    """For each class: the images of it, their placements, and those of the others less the AUC.

    To first order, the AUC of other weights is the mean placement of the class plus that of the others, less the AUC
    (the linear part of a two-sample U-statistic; for groups of images Obuchowski, Biometrics 1997). With all weights
    equal it is the AUC itself.
    """
    yield _images(answers)
    for code in ranking.scored_classes(answers.classes):
        of = ranking.ranks(answers.labels, answers.probabilities, code)
        placed, auc = ranking.placements(of)
        yield of.positive.astype(np.float64)
        yield placed * of.positive
        yield np.where(of.positive, 0.0, placed - (0.0 if np.isnan(auc) else auc))


def _of_auc(by_support: bool, sums: Array) -> Array:
    support, own, others = sums[:, 1::3], sums[:, 2::3], sums[:, 3::3]
    rest = sums[:, :1] - support
    values = np.clip(class_counts.over(own, support) + class_counts.over(others, rest), 0.0, 1.0)
    known = ~np.isnan(values)
    shares = known * (support if by_support else np.ones_like(support))
    return class_counts.over((np.where(known, values, 0.0) * shares).sum(axis=1), shares.sum(axis=1))


def ranked_classes(answers: Answers) -> Iterator[ranking.Ranks]:
    """The images ranked by their probability of each class that a mean over classes counts."""
    for code in ranking.scored_classes(answers.classes):
        yield ranking.ranks(answers.labels, answers.probabilities, code)


def _own(
    function: Callable[[Codes, Floats, list[str]], float], answers: Answers, label_space: LabelSpace
) -> Callable[[Array], float]:
    names = list(label_space.classes)

    def score(weights: Array) -> float:
        rows = np.repeat(np.arange(len(weights)), weights.astype(np.int64))
        return function(answers.labels[rows], answers.probabilities[rows], names)

    return score
