"""All ensemble methods: fitted on out-of-fold probabilities, kept as plain JSON, and applied image by image.

A method's name may end in `+offsets` or `+expected`: then its classes are chosen after offsets that raise macro-F1, or
the macro-F1 that its probabilities promise (class_offsets), and its probabilities are those of the method without them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.config.ensemble import EXPECTED, METHOD_NAMES, OFFSETS, split_end
from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.averaging import BEST_MODEL, GEOMETRIC, MAJORITY, MEAN, RANK, TEMPERED
from foldvote.ensemble.candidates import Candidates, subsample
from foldvote.ensemble.class_offsets import offsets_of, predict_classes
from foldvote.ensemble.ensemble_method import EnsembleMethod, FitContext, Floats, Labels, Metric, Params
from foldvote.ensemble.greedy_selection import GREEDY
from foldvote.ensemble.stacking import LIGHTGBM, LIGHTGBM_METADATA, STACKING, STACKING_METADATA
from foldvote.ensemble.weighting import CLASS_WEIGHTS, FACTOR_WEIGHTS, WEIGHTS
from foldvote.errors import UserError

PIECE = 4_096  # images applied at once: what they need stays in the processor's cache

# As in METHOD_NAMES of foldvote.config.ensemble, which a test compares.
METHODS: dict[str, EnsembleMethod] = {
    method.name: method
    for method in (
        *(MEAN, GEOMETRIC, BEST_MODEL, MAJORITY, RANK, TEMPERED, GREEDY),
        *(WEIGHTS, FACTOR_WEIGHTS, CLASS_WEIGHTS, STACKING, LIGHTGBM, STACKING_METADATA, LIGHTGBM_METADATA),
    )
}


def simplest_first(kinds: Iterable[str]) -> list[str]:
    """Names of methods in order of complexity.

    Offsets that labels fit are one number per class, so that a method with them comes after those with one weight per
    candidate; those that are expected follow from the probabilities.

    Args:
        kinds: names in METHOD_NAMES, also with `+offsets` or `+expected`.

    Raises:
        UserError: if a name is not known.
    """

    def complexity(kind: str) -> tuple[int, int, int]:
        name, end = _known(kind)
        place = METHOD_NAMES.index(name)
        return (
            max(place, METHOD_NAMES.index("factor_weights")) if end == OFFSETS else place,
            ("", EXPECTED, OFFSETS).index(end),
            place,
        )

    return sorted(kinds, key=complexity)


def _known(kind: str) -> tuple[str, str]:
    """`split_end` of a name that is known."""
    name, end = split_end(kind)
    if name not in METHOD_NAMES:
        raise UserError(
            f"vote: no kind {kind!r}; choose of {', '.join(METHOD_NAMES)}, each also with {EXPECTED} or {OFFSETS}"
        )
    return name, end


def fit_method(
    kind: str,
    candidates: Candidates,
    labels: Labels,
    label_space: LabelSpace,
    seed: int,
    *,
    folds: Labels | None = None,
    groups: Labels | None = None,
    metric: Metric = "log_loss",
    rows: Labels | None = None,
) -> Params:
    """Fit an ensemble method.

    Args:
        kind: a name in METHODS, also with `+offsets` or `+expected`.
        candidates: out-of-fold probabilities.
        labels: true codes, shape (images,).
        label_space: the classes.
        seed: the run's seed.
        folds: the fold of each image, by which stacking chooses its strength of regularisation.
        groups: the code of each image's group; over 50,000 images (20,000 for stacking and lightgbm) the fit is on a
            draw of whole groups (candidates.subsample).
        metric: the score that best_model and greedy improve.
        rows: positions of the images that may be used; None: all of them.

    Returns:
        A JSON-able dict: `kind`, `candidates` (sorted names), what the method has fitted, and `offsets` where asked
        for.

    Raises:
        UserError: if the method is not known, does not fit the classes, or its package is missing.
        ValueError: if the labels do not fit the candidates.
    """
    name, end = _known(kind)
    method = METHODS[name]
    labels = np.asarray(labels, np.int64)
    if labels.shape != (candidates.images,):
        raise ValueError(f"labels of shape {labels.shape} do not fit {candidates.images} images")
    candidates = candidates.ordered()
    names = list(candidates.names)
    if method.is_fitted or end:
        allowed = np.arange(len(labels)) if rows is None else np.asarray(rows)
        allowed_groups = None if groups is None else np.asarray(groups)[allowed]
        drawn = allowed[subsample(len(allowed), allowed_groups, seed, method.most_images)]
        if len(drawn) < len(labels):
            candidates, labels = candidates.rows(drawn), labels[drawn]
            folds = None if folds is None else np.asarray(folds)[drawn]
    context = FitContext(label_space, seed, metric, folds)
    params: Params = {"kind": kind, "candidates": names} | method.fit(candidates, labels, context)
    if end:
        params["offsets"] = offsets_of(end, apply_method(candidates, params, label_space), labels)
    return params


def apply_method(candidates: Candidates, params: Mapping[str, Any], label_space: LabelSpace) -> Floats:
    """The method's probabilities, each image on its own: float64 (images, classes), rows sum to 1.

    Args:
        candidates: the same candidates as were fitted, in any order; others are ignored.
        params: what `fit_method` returned.
        label_space: the classes.

    Raises:
        UserError: if a candidate is missing.
    """
    candidates = candidates.named(params["candidates"])
    name, _ = split_end(params["kind"])
    probabilities = np.empty((candidates.images, candidates.classes))
    for start in range(0, candidates.images, PIECE):
        piece = slice(start, start + PIECE)
        probabilities[piece] = METHODS[name].apply(candidates.rows(piece), params, label_space)
    return probabilities


def choose_classes(probabilities: Floats, params: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """The classes that a fitted method chooses, after its offsets where it has any: int64 (images,)."""
    return predict_classes(probabilities, params.get("offsets"))
