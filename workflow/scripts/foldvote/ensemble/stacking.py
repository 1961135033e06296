"""A second model on top of the candidates: logistic regression, or LightGBM where it is installed.

Wolpert, "Stacked generalization" (Neural Networks 1992). The features are the log-probabilities of each model's mean
over its views: of logarithms, because the weighted geometric mean is then a special case of the logistic regression.
`stacking_metadata` and `lightgbm_metadata` see the images' metadata beside them, encoded as fitted on the same images.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize

from foldvote.data.label_space import LabelSpace
from foldvote.data.metadata import Encoding, encode, fit_encoding
from foldvote.ensemble.candidates import Candidates, equal_shares, mixture_of, model_means, subsample
from foldvote.ensemble.ensemble_method import EnsembleMethod, FitContext, Floats, Labels, Need, Params
from foldvote.errors import UserError
from foldvote.evaluation.metrics import log_loss
from foldvote.evaluation.probabilities import softmax

FLOOR = 1e-6  # smaller probabilities count as this
STRENGTHS = (1e-1, 1e-2, 1e-3)  # of L2 regularisation per image, which means the same for any number of images
STRENGTH = 1e-2
TREES = 100
MOST_STACKED = 20_000  # images that a second model is fitted on
MOST_SEARCHED = 5_000  # images on which strengths are compared


def fit_stacking(candidates: Candidates, labels: Labels, context: FitContext) -> Params:
    """A multinomial logistic regression with strong L2 regularisation on standardised log-probabilities.

    The strength is that of 0.1, 0.01 and 0.001 per image with the least log-loss in cross-validation over the context's
    folds, on a fixed draw of at most 5,000 images; 0.01 where there are fewer than two folds.

    Returns:
        `stacking`, a dict of `models`, `mean` and `scale` (one per feature), `seen` (codes that have an image),
        `coefficients` (seen, features), `intercepts` (seen,) and `strength`.
    """
    models, features = _features(candidates, None)
    return {"stacking": _fit_regression(models, features, np.asarray(labels, np.int64), candidates.classes, context)}


def _fit_regression(
    models: list[str], features: Floats, labels: Labels, classes: int, context: FitContext
) -> dict[str, Any]:
    """What `fit_stacking` returns, fitted on any features (images, features)."""
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1)
    features = (features - mean) / scale
    strength = STRENGTH
    if context.folds is not None:
        strength = _best_strength(features, labels, np.asarray(context.folds), classes)
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


def apply_stacking(candidates: Candidates, params: Mapping[str, Any], _label_space: LabelSpace) -> Floats:
    """Probabilities of the regression; a class without an image in the fit keeps the mean's. (images, classes)."""
    fitted = params["stacking"]
    features = (_features(candidates, fitted.get("metadata"))[1] - np.asarray(fitted["mean"])) / np.asarray(
        fitted["scale"]
    )
    predicted = softmax(features @ np.asarray(fitted["coefficients"]).T + np.asarray(fitted["intercepts"]))
    return _with_unseen(candidates, predicted, fitted["seen"])


def fit_stacking_metadata(candidates: Candidates, labels: Labels, context: FitContext) -> Params:
    """The regression of `fit_stacking` on log-probabilities and metadata; `stacking` also has `metadata`, an encoding.

    Raises:
        UserError: if the images have no metadata.
    """
    encoding = _encoding(candidates)
    models, features = _features(candidates, encoding)
    fitted = _fit_regression(models, features, np.asarray(labels, np.int64), candidates.classes, context)
    return {"stacking": fitted | {"metadata": encoding}}


def fit_lightgbm(candidates: Candidates, labels: Labels, context: FitContext) -> Params:
    """100 small boosted trees per class.

    Returns:
        `lightgbm`, a dict of `models`, `seen` (codes that have an image) and `booster`, the trees as text.

    Raises:
        UserError: if LightGBM is not installed.
    """
    models, features = _features(candidates, None)
    return {"lightgbm": _fit_trees(models, features, labels, context)}


def fit_lightgbm_metadata(candidates: Candidates, labels: Labels, context: FitContext) -> Params:
    """The trees of `fit_lightgbm` on log-probabilities and metadata; `lightgbm` also has `metadata`, an encoding.

    Raises:
        UserError: if LightGBM is not installed, or the images have no metadata.
    """
    encoding = _encoding(candidates)
    models, features = _features(candidates, encoding)
    return {"lightgbm": _fit_trees(models, features, labels, context) | {"metadata": encoding}}


def _fit_trees(models: list[str], features: Floats, labels: Labels, context: FitContext) -> dict[str, Any]:
    """What `fit_lightgbm` returns, fitted on any features (images, features)."""
    lightgbm = _lightgbm()
    seen, codes = np.unique(np.asarray(labels, np.int64), return_inverse=True)
    options = {
        "objective": "multiclass" if len(seen) > 1 else "regression",
        "num_leaves": 7,
        "learning_rate": 0.05,
        "min_data_in_leaf": 50,
        "lambda_l2": 10.0,
        "seed": context.seed % 2**31,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    if len(seen) > 1:
        options["num_class"] = len(seen)
    booster = lightgbm.train(options, lightgbm.Dataset(features, label=codes), num_boost_round=TREES)
    return {"models": models, "seen": seen.tolist(), "booster": booster.model_to_string()}


def apply_lightgbm(candidates: Candidates, params: Mapping[str, Any], _label_space: LabelSpace) -> Floats:
    """Probabilities of the trees; a class without an image in the fit keeps the mean's. (images, classes)."""
    fitted = params["lightgbm"]
    booster = _lightgbm().Booster(model_str=fitted["booster"])
    if len(fitted["seen"]) == 1:
        predicted = np.ones((candidates.images, 1))
    else:
        predicted = np.asarray(booster.predict(_features(candidates, fitted.get("metadata"))[1]))
    return _with_unseen(candidates, predicted, fitted["seen"])


def _features(candidates: Candidates, encoding: list[dict[str, Any]] | None) -> tuple[list[str], Floats]:
    """Models in sorted order, and their log-probabilities side by side: float64 (images, models * classes).

    With the plain values of an encoding the images' metadata follows: (images, models * classes + its width).
    """
    models, means = model_means(candidates)
    parts = list(np.log(np.maximum(means, FLOOR)))
    if encoding is not None:
        parts.append(encode(_metadata(candidates), Encoding.of_json(encoding)).astype(np.float64))
    return models, np.concatenate(parts, axis=1)


def _encoding(candidates: Candidates) -> list[dict[str, Any]]:
    """The encoding of the images' metadata, as plain values."""
    return fit_encoding(_metadata(candidates)).as_json()


def _metadata(candidates: Candidates) -> pd.DataFrame:
    if candidates.metadata is None:
        raise UserError("vote: no metadata of these images; name columns in data.metadata, or choose another vote")
    return candidates.metadata


def _regression(features: Floats, labels: Labels, strength: float) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """The codes that have an image, coefficients (seen, features) and intercepts (seen,)."""
    from sklearn.linear_model import LogisticRegression  # slow to import

    seen = np.unique(np.asarray(labels, np.int64))
    if len(seen) < 2:
        return seen, np.zeros((len(seen), features.shape[1])), np.zeros(len(seen))
    model = LogisticRegression(C=1 / (strength * len(labels)), max_iter=500).fit(features, labels)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(seen) == 2:  # scikit-learn then gives one row, the logit of the second class
        coefficients, intercepts = np.vstack([-coefficients, coefficients]) / 2, np.r_[-intercepts, intercepts] / 2
    return seen, coefficients, intercepts


def _best_strength(features: Floats, labels: Labels, folds: Labels, classes: int) -> float:
    """The strength with the least log-loss over the folds, each predicted from all others."""
    drawn = subsample(len(labels), None, 0, MOST_SEARCHED)
    single, labels, folds = features[drawn].astype(np.float32), labels[drawn], folds[drawn]
    known = np.unique(folds)
    if len(known) < 2:
        return STRENGTH
    losses = np.zeros(len(STRENGTHS))
    for fold in known:
        out = folds == fold
        seen, coefficients = _regression_path(single[~out], labels[~out])
        for place, (weights, intercepts) in enumerate(coefficients):
            predicted = np.zeros((int(out.sum()), classes))
            predicted[:, seen] = softmax(single[out] @ weights.T + intercepts)
            losses[place] += log_loss(labels[out], np.maximum(predicted, FLOOR)) * out.sum()
    return STRENGTHS[int(np.argmin(losses))]


def _regression_path(
    features: npt.NDArray[np.float32], labels: Labels
) -> tuple[npt.NDArray[np.int64], list[tuple[Floats, Floats]]]:
    """What `_regression` fits, for every strength in turn: each begins where the one before it ended.

    A third of the time of as many fits from zero: sums of images are in float32, which is enough to compare strengths.

    Returns:
        The codes that have an image; by strength coefficients (seen, features) and intercepts (seen,).
    """
    seen, codes = np.unique(np.asarray(labels, np.int64), return_inverse=True)
    images, count = features.shape
    columns = np.ascontiguousarray(np.concatenate([features, np.ones((images, 1), np.float32)], axis=1).T)
    transposed, every = columns.T.copy(), np.arange(images)
    weights = np.zeros((len(seen), count + 1))
    path = []
    for strength in STRENGTHS:
        # Of two classes scikit-learn fits one row, whose square counts twice as much as those of two opposite halves.
        pull = strength * (2 if len(seen) == 2 else 1)

        def loss(flat: Floats, pull: float = pull) -> tuple[float, Floats]:
            weights = flat.reshape(len(seen), count + 1)
            logits = weights.astype(np.float32) @ columns
            logits -= logits.max(axis=0)
            value = -logits[codes, every].sum(dtype=np.float64)
            powers = np.exp(logits, out=logits)
            totals = powers.sum(axis=0)
            value = (value + np.log(totals).sum(dtype=np.float64)) / images
            powers /= totals
            powers[codes, every] -= 1
            slope = (powers @ transposed).astype(np.float64) / images
            slope[:, :-1] += pull * weights[:, :-1]
            return value + pull / 2 * float((weights[:, :-1] ** 2).sum()), slope.ravel()

        options = {"gtol": 1e-4, "ftol": 1e-9, "maxiter": 500}
        weights = minimize(loss, weights.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(weights.shape)
        path.append((weights[:, :-1], weights[:, -1]))
    return seen, path


def _with_unseen(candidates: Candidates, predicted: Floats, seen: list[int]) -> Floats:
    """The predicted probabilities of the classes in `seen`, scaled so that the others keep those of the mean."""
    probabilities = mixture_of(candidates, equal_shares(candidates))
    of_seen = probabilities[:, seen].sum(axis=1, keepdims=True)
    probabilities[:, seen] = predicted * of_seen
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def _lightgbm() -> Any:
    try:
        import lightgbm  # an extra
    except (ImportError, OSError) as error:  # OSError: the machine lacks OpenMP, which the wheel does not hold
        raise UserError(
            f"vote: no lightgbm ({error}); pip install lightgbm (and Debian's libgomp1), or choose another vote"
        ) from error
    return lightgbm


STACKING = EnsembleMethod("stacking", fit_stacking, apply_stacking, fits_certainty=True, most_images=MOST_STACKED)
LIGHTGBM = EnsembleMethod("lightgbm", fit_lightgbm, apply_lightgbm, fits_certainty=True, most_images=MOST_STACKED)
STACKING_METADATA = replace(
    STACKING, name="stacking_metadata", fit=fit_stacking_metadata, needs=frozenset({Need.METADATA})
)
LIGHTGBM_METADATA = replace(
    LIGHTGBM, name="lightgbm_metadata", fit=fit_lightgbm_metadata, needs=frozenset({Need.METADATA})
)
