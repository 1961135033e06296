"""Training losses: weighted sums of terms, each a function of logits and soft targets.

Every term takes probabilities as targets, so that label smoothing, mixed images and soft labels work with all of them.
A factored head gives joint log-probabilities, which can be used as logits.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from foldvote.config.first_round import Distill
from foldvote.config.losses import (
    Asymmetric,
    CrossEntropy,
    Focal,
    LabelLoss,
    Ldam,
    OfFactors,
    SoftF1,
    SupCon,
)
from foldvote.config.recipe import Recipe
from foldvote.data.label_space import LabelSpace

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_Term = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
_EFFECTIVE_BETA = 0.999


def make_loss(
    recipe: Recipe,
    counts: np.ndarray,
    weighted: bool = False,
    label_space: LabelSpace | None = None,
    features: Callable[[], torch.Tensor] | None = None,
) -> LossFunction:
    """Make the training loss of a recipe.

    Args:
        recipe: the recipe; loss, label_smoothing, class_weights and distill are used.
        counts: number of training images of each class, shape (classes,).
        weighted: whether images have weights. Then the rows of the targets sum to them.
        label_space: the classes; only for a term that names factors.
        features: gives those of the images that the logits are of, float (batch, features); only for `sup_con`.

    Returns:
        A function of logits (batch, classes), float32, and targets (batch, classes), float32 rows that sum to 1,
        that returns a scalar: the weighted sum of the recipe's terms. Targets are smoothed once for all terms (Szegedy
        et al., CVPR 2016). Class weights apply to every term except the soft macro-F1, which weights all classes
        equally.

        With `distill` the targets are (batch, 2 x classes): those above, and what the teachers predict at its
        temperature, each row multiplied by the weight of its image. The scalar is 1 - `weight` times the sum above plus
        `weight` times `distillation`.

        With `tells_groups` a last column of the targets is the number of each image's group. The terms `consistency`
        and `sup_con` are added to all of the above.

        A term is the mean over the images of weight times loss, not divided by the weights of the batch: so parts of a
        batch add up, and in expectation over batches it is the weighted loss of all training images, whose weights are
        1 on average. The soft macro-F1 counts images by their weights.
    """
    smoothing, classes = recipe.label_smoothing, len(counts)
    weights = torch.from_numpy(class_weights(recipe.class_weights, counts)).float()
    terms = [(term.weight, _term(term, counts)) for term in recipe.loss if not isinstance(term, OfFactors)]

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        images = targets.sum(dim=1) if weighted else None
        shares = targets if images is None else targets / images[:, None]
        smooth = shares * (1 - smoothing) + smoothing / classes
        own = weights.to(logits.device, non_blocking=True)
        return torch.stack([weight * term(logits, smooth, own, images) for weight, term in terms]).sum()

    labels_loss = loss if recipe.distill is None else _taught(loss, recipe.distill, classes, weighted)
    compares = recipe.tells_groups or recipe.contrasts
    return _comparing(labels_loss, recipe, label_space, classes, weighted, features) if compares else labels_loss


def distillation(
    logits: torch.Tensor, taught: torch.Tensor, temperature: float, images: torch.Tensor | None = None
) -> torch.Tensor:
    """T^2 times the mean divergence KL(teachers || student), both at the temperature T (Hinton et al., 2015).

    The factor T^2 keeps the size of the gradients, which softening divides by about as much.

    Args:
        logits: of the student, float32 (batch, classes).
        taught: what the teachers predict at this temperature, float32 (batch, classes), rows sum to 1.
        temperature: T.
        images: weights of the images, float32 (batch,); None: they have none.
    """
    logs = F.log_softmax(logits / temperature, dim=1)
    return temperature**2 * _mean(F.kl_div(logs, taught, reduction="none").sum(dim=1), images)


def consistency(
    logits: torch.Tensor, groups: torch.Tensor, of_level: torch.Tensor, images: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean divergence KL(mean of the group || own) of the images' predictions of one factor.

    The mean has no gradient: each image is drawn towards what its group says, all of it together. An image alone in its
    group diverges from nothing. Means are over the images that are here, so a part of a batch is a batch by itself.

    Args:
        logits: float32 (batch, classes).
        groups: number of each image's group, float (batch,); negative: of an image that is not compared.
        of_level: whether a class has a level of the factor, bool (levels, classes).
        images: weights of the images, float32 (batch,); None: they have none.
    """
    logs = F.log_softmax(logits, dim=1)
    own = torch.where(of_level, logs[:, None], -torch.inf).logsumexp(dim=2)
    with torch.no_grad():
        same = ((groups[:, None] == groups) & (groups >= 0)).to(own.dtype)
        mean = same @ own.exp() / same.sum(dim=1, keepdim=True).clamp_min(1)
    return _mean(F.kl_div(own, mean, reduction="none").sum(dim=1), images)


def sup_con(
    features: torch.Tensor, shares: torch.Tensor, temperature: float, images: torch.Tensor | None = None
) -> torch.Tensor:
    """Supervised contrastive loss, the mean over positives outside the logarithm (Khosla et al., NeurIPS 2020, eq. 2).

    Images of several levels, which are mixed ones or have soft labels, are left out; one that is the only image of its
    level has no positives, and is a negative for others.

    Args:
        features: float (batch, features), of any length.
        shares: of each level in the targets, float32 (batch, levels), rows sum to 1.
        temperature: by which the cosines are divided.
        images: weights of the images, float32 (batch,); None: they have none.
    """
    unit = F.normalize(features.float(), dim=1)
    share, level = shares.max(dim=1)
    pure = share > 1 - 1e-4
    others = pure[:, None] & pure & ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    cosines = unit @ unit.T / temperature
    logs = F.log_softmax(cosines.masked_fill(~others, torch.finfo(cosines.dtype).min), dim=1)
    positive = others & (level[:, None] == level)
    return -_mean(torch.where(positive, logs, 0).sum(dim=1) / positive.sum(dim=1).clamp_min(1), images)


def _comparing(
    labels_loss: LossFunction,
    recipe: Recipe,
    label_space: LabelSpace | None,
    classes: int,
    weighted: bool,
    features: Callable[[], torch.Tensor] | None,
) -> LossFunction:
    """The loss on labels, and the terms that compare the images of a batch."""
    terms = [
        (term, of_level)
        for term in recipe.loss
        if isinstance(term, OfFactors)
        for of_level in _levels(term, label_space, classes)
    ]

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rows, groups = (targets[:, :-1], targets[:, -1]) if recipe.tells_groups else (targets, None)
        labels, total = rows[:, :classes], labels_loss(logits, rows)
        images = labels.sum(dim=1) if weighted else None
        shares = labels if images is None else labels / images[:, None]
        own = features() if features is not None else None
        for term, of_level in terms:
            on_device = of_level.to(logits.device, non_blocking=True)
            if isinstance(term, SupCon):
                assert own is not None
                value = sup_con(own, shares @ on_device.float().T, term.temperature, images)
            else:
                assert groups is not None
                value = consistency(logits, groups, on_device, images)
            total = total + term.weight * value
        return total

    return loss


def _levels(term: OfFactors, label_space: LabelSpace | None, classes: int) -> list[torch.Tensor]:
    """For each factor that a term names the classes of each of its levels, bool (levels, classes); else each class."""
    if term.factors is None:
        return [torch.eye(classes, dtype=torch.bool)]
    assert label_space is not None
    codes = [label_space.level_codes(name) for name in term.factors]
    return [torch.from_numpy(of_class == np.unique(of_class)[:, None]) for of_class in codes]


def _taught(labels_loss: LossFunction, distill: Distill, classes: int, weighted: bool) -> LossFunction:
    """The loss on labels and on what teachers predict, which follows the labels in the targets."""

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        labels, taught = targets.split(classes, dim=1)
        images = labels.sum(dim=1) if weighted else None
        taught = taught if images is None else taught / images[:, None]
        own = distillation(logits, taught, distill.temperature, images)
        return (1 - distill.weight) * labels_loss(logits, labels) + distill.weight * own

    return loss


def class_weights(kind: str, counts: np.ndarray) -> np.ndarray:
    """Weight of each class, 1 on average over the training images.

    Args:
        kind: `none`: equal weights; `inverse`: 1 / count; `effective`: 1 / the effective number of images,
            (1 - beta^n) / (1 - beta) with beta = 0.999 (Cui et al., CVPR 2019).
        counts: number of training images of each class, shape (classes,).

    Returns:
        float64 (classes,); 0 for a class without images. A class that has less than one image, of soft targets or light
        images alone, counts as one image: a label smoothed into it would outweigh all else.
    """
    number = np.asarray(counts, dtype=np.float64)
    number = np.where(number > 0, np.maximum(number, 1), 0)
    if kind == "effective":
        number = (1 - _EFFECTIVE_BETA**number) / (1 - _EFFECTIVE_BETA)
    if kind == "none" or not number.any():
        return np.ones(len(number))
    weights = np.divide(1.0, number, out=np.zeros(len(number)), where=number > 0)
    return weights * np.sum(counts) / np.sum(weights * counts)


def _term(term: LabelLoss, counts: np.ndarray) -> _Term:
    """One term: a function of logits, targets, class weights, and weights of the images or None."""
    match term:
        case CrossEntropy():
            return _cross_entropy
        case Focal():
            return lambda logits, targets, weights, images: _focal(logits, targets, weights, images, term.gamma)
        case SoftF1():
            return _soft_f1
        case Asymmetric():
            return lambda logits, targets, weights, images: _asymmetric(logits, targets, weights, images, term)
        case Ldam():
            margins = torch.from_numpy(_margins(term.margin, counts)).float()
            return lambda logits, targets, weights, images: _cross_entropy(
                logits - targets * margins.to(logits.device, non_blocking=True), targets, weights, images
            )


def _mean(losses: torch.Tensor, images: torch.Tensor | None) -> torch.Tensor:
    """The mean over the images of their losses times their weights."""
    return losses.mean() if images is None else (losses * images).mean()


def _cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, images: torch.Tensor | None
) -> torch.Tensor:
    return -_mean((targets * weights * F.log_softmax(logits, dim=1)).sum(dim=1), images)


def _focal(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, images: torch.Tensor | None, gamma: float
) -> torch.Tensor:
    logs = F.log_softmax(logits, dim=1)
    return -_mean((targets * weights * _power(1 - logs.exp(), gamma) * logs).sum(dim=1), images)


def _asymmetric(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    images: torch.Tensor | None,
    term: Asymmetric,
) -> torch.Tensor:
    """Asymmetric loss in its single-label form: cross-entropy with a focal factor for each class."""
    logs = F.log_softmax(logits, dim=1)
    probabilities = logs.exp()
    with torch.no_grad():
        wrong_positive = _power(1 - probabilities, term.gamma_positive)
        wrong_negative = _power(probabilities, term.gamma_negative)
        focus = targets * wrong_positive + (1 - targets) * wrong_negative
    return -_mean((targets * weights * focus * logs).sum(dim=1), images)


def _soft_f1(
    logits: torch.Tensor, targets: torch.Tensor, _weights: torch.Tensor, images: torch.Tensor | None
) -> torch.Tensor:
    """One minus macro-F1 computed with probabilities in place of counts, over the classes present in the batch.

    An absent class is left out, because its F1 is 0 whatever the network predicts.
    """
    probabilities = F.softmax(logits, dim=1)
    shares = (probabilities * targets, probabilities, targets)
    hits, predicted, true = ((each if images is None else each * images[:, None]).sum(0) for each in shares)
    present = (targets > targets.mean()).any(dim=0)
    f1 = 2 * hits / (predicted + true).clamp_min(1e-6)
    return 1 - (f1 * present).sum() / present.sum().clamp_min(1)


def _margins(widest: float, counts: np.ndarray) -> np.ndarray:
    """The LDAM margin of each class, proportional to count ** -0.25 (Cao et al., NeurIPS 2019): float64 (classes,).

    The paper scales normalised logits by 30; here logits are neither normalised nor scaled.

    Args:
        widest: margin of the rarest class.
        counts: number of training images of each class, shape (classes,).
    """
    number = np.maximum(np.asarray(counts, dtype=np.float64), 1)
    return widest * (number.min() / number) ** 0.25


def _power(base: torch.Tensor, exponent: float) -> torch.Tensor:
    """base ** exponent with a finite gradient at 0."""
    return base.clamp_min(1e-8) ** exponent
