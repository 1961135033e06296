"""A second model on top of the candidates: logistic regression, or LightGBM where it is installed.

Wolpert, "Stacked generalization" (Neural Networks 1992). The features are the log-probabilities of each model's mean
over its views: logarithms, as a logistic regression on them holds the weighted geometric vote as a special case.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.ensemble.candidates import Candidates, equal_shares, mixture_of, model_means, subsample
from foldvote.errors import UserError
from foldvote.evaluation.metrics import log_loss
from foldvote.evaluation.probabilities import softmax

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
FLOOR = 1e-6  # a probability below it says no more than this
STRENGTHS = (1e-1, 1e-2, 1e-3)  # of L2 an image: it means the same whatever the number of images
STRENGTH = 1e-2
TREES = 100
MOST_STACKED = 20_000  # images that a second model is fitted on
MOST_SEARCHED = 5_000  # images on which strengths are compared


def fit_stacking(candidates: Candidates, labels: Labels, folds: Labels | None = None) -> dict[str, Any]:
    """A multinomial logistic regression with strong L2 on standardised log-probabilities.

    The strength is that of 0.1, 0.01 and 0.001 an image with the least log-loss over the folds, each predicted from
    all others, on a fixed draw of at most 5,000 images; 0.01 without at least two folds.

    Returns:
        `models`, `mean`, `scale` (a feature each), `seen` (codes that have an image), `coefficients` (seen, features),
        `intercepts` and `strength`.
    """
    models, features = _features(candidates)
    labels = np.asarray(labels, np.int64)
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1)
    features = (features - mean) / scale
    strength = STRENGTH if folds is None else _strength(features, labels, np.asarray(folds), candidates.classes)
    seen, coefficients, intercepts = _regression(features, labels, strength)
    return {
        "models": models,
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "seen": seen.tolist(),
        "coefficients": coefficients.tolist(),
        "intercepts": intercepts.tolist(),
        "strength": strength,
    }


def apply_stacking(candidates: Candidates, params: dict[str, Any]) -> Floats:
    """Probabilities of the regression; a class that it has not seen keeps the mean vote's. (images, classes)."""
    features = (_features(candidates)[1] - np.asarray(params["mean"])) / np.asarray(params["scale"])
    found = softmax(features @ np.asarray(params["coefficients"]).T + np.asarray(params["intercepts"]))
    return _with_unseen(candidates, found, params["seen"])


def fit_lightgbm(candidates: Candidates, labels: Labels, seed: int) -> dict[str, Any]:
    """100 small boosted trees a class, kept as text.

    Raises:
        UserError: if LightGBM is not installed.
    """
    lightgbm = _lightgbm()
    models, features = _features(candidates)
    seen, codes = np.unique(np.asarray(labels, np.int64), return_inverse=True)
    options = {
        "objective": "multiclass" if len(seen) > 1 else "regression",
        "num_leaves": 7,
        "learning_rate": 0.05,
        "min_data_in_leaf": 50,
        "lambda_l2": 10.0,
        "seed": seed % 2**31,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    if len(seen) > 1:
        options["num_class"] = len(seen)
    booster = lightgbm.train(options, lightgbm.Dataset(features, label=codes), num_boost_round=TREES)
    return {"models": models, "seen": seen.tolist(), "booster": booster.model_to_string()}


def apply_lightgbm(candidates: Candidates, params: dict[str, Any]) -> Floats:
    """Probabilities of the trees; a class that they have not seen keeps the mean vote's. (images, classes)."""
    booster = _lightgbm().Booster(model_str=params["booster"])
    if len(params["seen"]) == 1:
        found = np.ones((candidates.images, 1))
    else:
        found = np.asarray(booster.predict(_features(candidates)[1]))
    return _with_unseen(candidates, found, params["seen"])


def _features(candidates: Candidates) -> tuple[list[str], Floats]:
    """Models in sorted order, and their log-probabilities side by side: float64 (images, models * classes)."""
    models, means = model_means(candidates)
    return models, np.concatenate(list(np.log(np.maximum(means, FLOOR))), axis=1)


def _regression(features: Floats, labels: Labels, strength: float) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Codes seen, coefficients (seen, features) and intercepts (seen,)."""
    from sklearn.linear_model import LogisticRegression  # slow to import

    seen = np.unique(labels)
    if len(seen) < 2:
        return seen, np.zeros((len(seen), features.shape[1])), np.zeros(len(seen))
    model = LogisticRegression(C=1 / (strength * len(labels)), max_iter=500).fit(features, labels)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(seen) == 2:  # two classes share one row: the logit of the second
        coefficients, intercepts = np.vstack([-coefficients, coefficients]) / 2, np.r_[-intercepts, intercepts] / 2
    return seen, coefficients, intercepts


def _strength(features: Floats, labels: Labels, folds: Labels, classes: int) -> float:
    """The strength with the least log-loss over the folds."""
    drawn = subsample(len(labels), None, 0, MOST_SEARCHED)
    features, labels, folds = features[drawn], labels[drawn], folds[drawn]
    known = np.unique(folds)
    if len(known) < 2:
        return STRENGTH
    losses = []
    for strength in STRENGTHS:
        total = 0.0
        for fold in known:
            out = folds == fold
            seen, coefficients, intercepts = _regression(features[~out], labels[~out], strength)
            found = np.zeros((int(out.sum()), classes))
            found[:, seen] = softmax(features[out] @ coefficients.T + intercepts)
            total += log_loss(labels[out], np.maximum(found, FLOOR)) * out.sum()
        losses.append(total)
    return STRENGTHS[int(np.argmin(losses))]


def _with_unseen(candidates: Candidates, found: Floats, seen: list[int]) -> Floats:
    """The found probabilities of the classes seen, scaled to leave the others what the mean vote gives them."""
    whole = mixture_of(candidates, equal_shares(candidates))
    kept = whole[:, seen].sum(axis=1, keepdims=True)
    whole[:, seen] = found * kept
    return whole / whole.sum(axis=1, keepdims=True)


def _lightgbm() -> Any:
    try:
        import lightgbm  # an extra
    except (ImportError, OSError) as error:  # OSError: the machine lacks OpenMP, which the wheel does not hold
        raise UserError(
            f"vote: no lightgbm ({error}); pip install lightgbm (and Debian's libgomp1), or choose another vote"
        ) from error
    return lightgbm
