"""Voices of the vote: each model of whole classes is one, and all models of some factors multiply to one more."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from foldvote.errors import Refusal
from foldvote.labels import Scheme
from foldvote.vote import vote

Floats = npt.NDArray[np.floating]
Learnt = Mapping[str, Sequence[str] | None]
TIMES = "*"  # no model's name may hold it


def partial_models(learnt: Learnt) -> list[str]:
    """Names of the models that learn some factors only, sorted."""
    return sorted(model for model, factors in learnt.items() if factors)


def product_name(learnt: Learnt) -> str:
    """What the product of the models of some factors is called: `age*gender*mask`."""
    return TIMES.join(partial_models(learnt))


def own_classes(probabilities: Floats, factors: Sequence[str] | None, scheme: Scheme) -> tuple[Scheme, Floats]:
    """The classes that a model of some factors knows, and its probabilities of them: float64 (images, own classes)."""
    if not factors:
        return scheme, probabilities
    own, code_of = scheme.restricted(factors)
    return own, np.asarray(probabilities, np.float64) @ np.eye(len(own.classes))[code_of]


def voices(by_model: Mapping[str, Floats], learnt: Learnt, scheme: Scheme) -> dict[str, Floats]:
    """The voices that models make up.

    Models of the same factors are averaged; the product over the sets of factors takes these as independent given the
    image, as a factored head does.

    Args:
        by_model: probabilities of the task's classes of each model, shape (images, classes).
        learnt: the factors of each model; None learns all of them.
        scheme: the task's classes.

    Returns:
        Probabilities by voice, sorted by name; the product is called as `product_name` says.

    Raises:
        Refusal: if the models of some factors do not make up whole classes.
    """
    partial = partial_models(learnt)
    spoken = {model: by_model[model] for model in by_model if model not in partial}
    if partial:
        sets: dict[frozenset[str], list[str]] = {}
        for model in partial:
            sets.setdefault(frozenset(learnt[model] or ()), []).append(model)
        named = [name for factors in sets for name in factors]
        if sorted(named) != sorted(scheme.factors):
            raise Refusal(
                f"models {', '.join(partial)} learn {', '.join(sorted(named))} and the classes are made of "
                f"{', '.join(scheme.factors)}; run `snakemake` again with one configuration"
            )
        product = np.ones((len(next(iter(by_model.values()))), len(scheme.classes)))
        for factors, models in sets.items():
            own, code_of = scheme.restricted(sorted(factors))
            mean = vote(np.stack([own_classes(by_model[model], sorted(factors), scheme)[1] for model in models]))
            assert mean.shape[1] == len(own.classes)
            product *= mean[:, code_of]
        spoken[product_name(learnt)] = product / product.sum(axis=1, keepdims=True)
    return dict(sorted(spoken.items()))
