"""Heads: what stands where a timm net has its linear classifier, when the recipe asks for more than that.

A factored head has one distribution a factor and gives their sum of log-probabilities as the logits of the classes:
the factors are taken as independent given the image, and cross-entropy on the classes is the sum of the factors'.
Knows nothing of nets; foldvote.models.factory puts a head into one.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from foldvote.config.recipe import HeadKind, Recipe
from foldvote.data.label_space import LabelSpace
from foldvote.errors import UserError

MIDDLE_AGE, YEARS_A_UNIT = 40.0, 20.0  # a linear output of 0 is 40 years, of 1 is 60
NARROWEST_BAND = 1e-6  # logits; keeps the logarithm of a band's width finite
SCALES = (0.1, 400.0)  # years; a spread beyond these says nothing of bands of human ages


def keeps_classifier(recipe: Recipe) -> bool:
    """Whether timm's own linear classifier does what the recipe asks for: joint, with at most one dropout."""
    return recipe.heads == "joint" and recipe.dropout_samples == 1


def make_head(
    recipe: Recipe, scheme: LabelSpace, in_features: int, bands: Mapping[str, Sequence[float]] | None = None
) -> nn.Module | None:
    """The head that a recipe asks for, drawn from torch's generator.

    Args:
        recipe: for heads, drop_rate and dropout_samples.
        scheme: the classes that the net learns.
        in_features: length of the feature vector before the classifier.
        bands: rising borders of the bands of each factor with a number behind it, for a regression head.

    Returns:
        A module from features (B, in_features) to float32 logits (B, classes), or None where timm's own
        classifier stays.

    Raises:
        UserError: if the classes have no factors, no factor of a given name, or no bands for a regression.
    """
    if keeps_classifier(recipe):
        return None
    if recipe.heads == "joint":
        return JointHead(in_features, len(scheme.classes), recipe.drop_rate, recipe.dropout_samples)
    kinds = _head_kinds(recipe, scheme, bands or {})
    return FactoredHead(scheme, kinds, in_features, recipe.drop_rate, recipe.dropout_samples, bands)


class SampledLinear(nn.Module):
    """A linear layer over the mean of several dropouts of the features (multi-sample dropout, Inoue 2019).

    Inoue averages the samples' losses; here their outputs are averaged, which for a linear layer is the same as
    averaging the features. Always float32, whatever autocast says. In eval mode nothing is dropped.
    """

    def __init__(self, in_features: int, out_features: int, drop_rate: float, samples: int) -> None:
        super().__init__()
        self.drop_rate, self.samples = drop_rate, samples
        self.linear = nn.Linear(in_features, out_features)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, F) of any float type to float32 (B, out_features)."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            if self.training and self.drop_rate > 0:
                drops = [functional.dropout(features, self.drop_rate) for _ in range(self.samples)]
                features = torch.stack(drops).mean(dim=0)
            return self.linear(features)


class JointHead(SampledLinear):
    """One logit a class, with multi-sample dropout."""


class FactoredHead(nn.Module):
    """One distribution a factor; the logit of a class is the sum of its levels' log-probabilities.

    Args:
        scheme: classes made up of factors.
        kinds: for each factor of the scheme classes, ordinal or regression.
        in_features: length of the feature vector.
        drop_rate: dropout before the linear layer.
        samples: number of dropouts that are averaged.
        bands: borders of the bands of each factor that is regressed.
    """

    def __init__(
        self,
        scheme: LabelSpace,
        kinds: dict[str, HeadKind],
        in_features: int,
        drop_rate: float = 0.0,
        samples: int = 1,
        bands: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.factors = tuple(scheme.factors)
        borders = bands or {}
        distributions = [
            _distribution(kinds[name], len(scheme.factors[name]), borders.get(name)) for name in self.factors
        ]
        self.distributions = nn.ModuleList(distributions)
        self.widths = [distribution.width for distribution in distributions]
        self.scores = SampledLinear(in_features, sum(self.widths), drop_rate, samples)
        for number, name in enumerate(self.factors):  # no part of the weights: they follow from the classes
            codes = torch.from_numpy(scheme.level_codes(name).astype(np.int64))
            self.register_buffer(f"level_of_class_{number}", codes, persistent=False)

    def factor_logs(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Log-probabilities of each factor's levels, in the scheme's order: float32 tensors (B, levels)."""
        scores = self.scores(features)
        with torch.autocast(features.device.type, enabled=False):
            parts = scores.split(self.widths, dim=-1)
            return [logs(part) for logs, part in zip(self.distributions, parts, strict=True)]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, F) to float32 log-probabilities of the classes (B, C), which sum to 1 over the classes."""
        logs = [
            levels.index_select(-1, self.get_buffer(f"level_of_class_{number}"))
            for number, levels in enumerate(self.factor_logs(features))
        ]
        return torch.stack(logs).sum(dim=0)


class Categorical(nn.Module):
    """One score a level, and a softmax over them."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.width = levels

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """(B, levels) to log-probabilities (B, levels)."""
        return functional.log_softmax(scores, dim=-1)


class Ordinal(nn.Module):
    """One score and ordered thresholds: P(level <= k) = sigmoid(threshold_k - score).

    The proportional-odds model (McCullagh 1980), whose one shared score is also that of CORAL (Cao, Mirjalili &
    Raschka 2020). Thresholds are the first one plus a running sum of positive gaps, so they cannot cross. They begin
    where a score of 0 finds all levels equally likely.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.width = 1
        shares = torch.arange(1, levels, dtype=torch.float64) / levels
        gaps = shares.logit().diff()
        self.cuts = nn.Parameter(torch.cat([shares.logit()[:1], gaps.expm1().log()]).float())

    def thresholds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rising thresholds (levels - 1,) and the gaps between them (levels - 2,)."""
        gaps = functional.softplus(self.cuts[1:]) + NARROWEST_BAND
        return self.cuts[:1] + functional.pad(gaps.cumsum(0), (1, 0)), gaps

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """(B, 1) to log-probabilities (B, levels)."""
        thresholds, gaps = self.thresholds()
        return _band_logs(thresholds - scores, gaps)


class AgeRegression(nn.Module):
    """An age in years with one learnt spread, scored by the bands between the borders (logistic distribution).

    It learns from bands alone: that the number is in years comes from the borders, not from any age it was told.
    The maths are those of `Ordinal` with fixed thresholds and a learnt scale.
    """

    borders: torch.Tensor

    def __init__(self, borders: Sequence[float]) -> None:
        super().__init__()
        self.width = 1
        self.register_buffer("borders", torch.tensor(list(borders), dtype=torch.float32), persistent=False)
        self.log_scale = nn.Parameter(torch.tensor([5.0]).log())

    def years(self, scores: torch.Tensor) -> torch.Tensor:
        """Linear outputs of any shape as ages in years."""
        return MIDDLE_AGE + YEARS_A_UNIT * scores

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """(B, 1) to log-probabilities of the bands (B, borders + 1)."""
        scale = self.log_scale.exp().clamp(*SCALES)
        return _band_logs((self.borders - self.years(scores)) / scale, self.borders.diff() / scale)


def _band_logs(distances: torch.Tensor, gaps: torch.Tensor) -> torch.Tensor:
    """Logarithms of the differences of sigmoid(distances), of what is below the first and of what is above the last.

    sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), each factor of which has a stable logarithm. The
    gaps b - a (K - 1,) are given rather than subtracted: far from all thresholds (B, K) they would drown in rounding.
    """
    below, above = functional.logsigmoid(distances), functional.logsigmoid(-distances)
    between = below[..., 1:] + above[..., :-1] + torch.log(-torch.expm1(-gaps))
    return torch.cat([below[..., :1], between, above[..., -1:]], dim=-1)


def _distribution(kind: HeadKind, levels: int, borders: Sequence[float] | None) -> nn.Module:
    if kind == "regression":
        assert borders is not None
        return AgeRegression(borders)
    return Ordinal(levels) if kind == "ordinal" else Categorical(levels)


def _head_kinds(recipe: Recipe, scheme: LabelSpace, bands: Mapping[str, Sequence[float]]) -> dict[str, HeadKind]:
    """The kind of every factor's head."""
    if not scheme.factors:
        raise UserError(f"heads: {recipe.heads}: the classes are not made up of factors; use heads: joint")
    named = {} if isinstance(recipe.heads, str) else dict(recipe.heads)
    if unknown := [name for name in named if name not in scheme.factors]:
        raise UserError(f"heads: no factor {', '.join(unknown)}; this model learns {', '.join(scheme.factors)}")
    for name, kind in named.items():
        if kind != "regression":
            continue
        borders = bands.get(name)
        if borders is None or len(scheme.factors[name]) != len(borders) + 1:
            raise UserError(f"heads.{name}: regression is for the home task's age alone; use ordinal")
        if any(low >= high for low, high in pairwise(borders)):
            raise UserError(f"heads.{name}: the age borders {list(borders)} do not rise; correct them")
    return {name: named.get(name, "classes") for name in scheme.factors}
