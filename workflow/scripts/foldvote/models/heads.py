"""Heads that replace the linear classifier of a timm network.

A factored head has one distribution per factor. The logit of a class is the sum of the log-probabilities of its levels:
the factors are independent given the image, and the cross-entropy over classes is the sum of those over factors.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import timm
import torch
from torch import nn
from torch.nn import functional

from foldvote.config.recipe import HeadKind, Recipe
from foldvote.data.label_space import LabelSpace
from foldvote.data.metadata import Encoding
from foldvote.errors import UserError

MIDDLE_AGE, YEARS_A_UNIT = 40.0, 20.0  # a linear output of 0 is 40 years, of 1 is 60
NARROWEST_BAND = 1e-6  # in logits; keeps the logarithm of the width of a band finite
EMBEDDED = 32  # features that metadata becomes
SCALES = (0.1, 400.0)  # years; limits of the learnt spread of an age


def keeps_classifier(recipe: Recipe) -> bool:
    """Whether timm's linear classifier is kept: joint heads of the image alone, with at most one dropout sample."""
    return recipe.heads == "joint" and recipe.dropout_samples == 1 and recipe.metadata is None


def make_head(
    recipe: Recipe,
    label_space: LabelSpace,
    in_features: int,
    bands: Mapping[str, Sequence[float]] | None = None,
    metadata: Encoding | None = None,
) -> nn.Module | None:
    """Make the head of a recipe; its weights are drawn from torch's global generator.

    Args:
        recipe: the recipe; heads, drop_rate and dropout_samples are used.
        label_space: the classes of the network.
        in_features: length of the feature vector before the classifier.
        bands: increasing borders of the bands of each factor that bins a number, for a regression head.
        metadata: how metadata becomes numbers; only for a recipe with `metadata`.

    Returns:
        A module from features (B, in_features) to float32 logits (B, classes), or None if timm's classifier is kept.

    Raises:
        UserError: if the classes have no factors, a named factor does not exist, or a regression has no age bands.
    """
    if keeps_classifier(recipe):
        return None
    seen, dropout = in_features + (EMBEDDED if metadata else 0), (recipe.drop_rate, recipe.dropout_samples)
    if recipe.heads == "joint":
        head: nn.Module = JointHead(seen, len(label_space.classes), *dropout)
    else:
        head = FactoredHead(label_space, _head_kinds(recipe, label_space, bands or {}), seen, *dropout, bands)
    return head if metadata is None else HeadWithMetadata(head, metadata.missing)


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32, also under autocast."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (..., F) of any float type to float32 (..., out_features)."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


class Float32Conv2d(nn.Conv2d):
    """A convolution that computes in float32, also under autocast."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, F, H, W) of any float type to float32 (B, out_channels, H, W)."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


def in_float32(layer: nn.Module) -> nn.Module:
    """A layer with the same parameters that computes in float32; the layer itself if it has no such twin."""
    kinds: dict[type[nn.Module], type[nn.Module]] = {
        nn.Linear: Float32Linear,
        timm.layers.Linear: Float32Linear,
        nn.Conv2d: Float32Conv2d,
    }
    kind = kinds.get(type(layer))
    if kind is None:
        return layer
    twin: nn.Module = object.__new__(kind)
    twin.__dict__.update(layer.__dict__)
    return twin


class SampledLinear(nn.Module):
    """A linear layer over the mean of several dropout samples of the features (multi-sample dropout, Inoue 2019).

    Inoue averages the losses of the samples; here their outputs are averaged, which for a linear layer equals averaging
    the features. It computes in float32, also under autocast. In eval mode nothing is dropped.

    Args:
        in_features: length of the feature vector.
        out_features: number of outputs.
        drop_rate: dropout rate.
        samples: number of dropout samples.
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
    """One logit per class, with multi-sample dropout."""


class FactoredHead(nn.Module):
    """One distribution per factor; the logit of a class is the sum of the log-probabilities of its levels.

    Args:
        label_space: classes made up of factors.
        kinds: for each factor `classes`, `ordinal` or `regression`.
        in_features: length of the feature vector.
        drop_rate: dropout rate before the linear layer.
        samples: number of dropout samples that are averaged.
        bands: borders of the bands of each factor that is regressed.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        kinds: dict[str, HeadKind],
        in_features: int,
        drop_rate: float = 0.0,
        samples: int = 1,
        bands: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.factors = tuple(label_space.factors)
        borders = bands or {}
        distributions = [
            _distribution(kinds[name], len(label_space.factors[name]), borders.get(name)) for name in self.factors
        ]
        self.distributions = nn.ModuleList(distributions)
        self.widths = [distribution.width for distribution in distributions]
        self.scores = SampledLinear(in_features, sum(self.widths), drop_rate, samples)
        for number, name in enumerate(self.factors):  # not stored with the weights, as they follow from the classes
            codes = torch.from_numpy(label_space.level_codes(name).astype(np.int64))
            self.register_buffer(f"level_of_class_{number}", codes, persistent=False)

    def factor_logs(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Log-probabilities of each factor's levels, in the order of the label space: float32 tensors (B, levels)."""
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


class HeadWithMetadata(nn.Module):
    """A head of image features and metadata, which becomes a few features more.

    The network that it belongs to is then called with images and metadata, or with images alone, whose metadata is
    missing: see `take_metadata`.

    Args:
        head: of as many features as those of the image and EMBEDDED together.
        missing: the metadata of an image without any, float32 (width,).
    """

    missing: torch.Tensor

    def __init__(self, head: nn.Module, missing: np.ndarray) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(len(missing), EMBEDDED), nn.LayerNorm(EMBEDDED), nn.GELU())
        self.head = head
        self.register_buffer("missing", torch.from_numpy(missing), persistent=False)  # not stored: it is in the sidecar
        self._metadata: torch.Tensor | None = None

    @property
    def width(self) -> int:
        """Number of numbers of an image's metadata."""
        return len(self.missing)

    def take_metadata(self, _network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Keep the metadata from what a network is called with: a hook that torch calls before its forward pass."""
        images, *metadata = inputs
        self._metadata = metadata[0] if metadata else None
        return (images,)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, F) of any float type to float32 logits (B, classes)."""
        metadata, self._metadata = self._metadata, None
        if metadata is None:
            metadata = self.missing.expand(len(features), -1)
        with torch.autocast(features.device.type, enabled=False):
            embedded = self.embed(metadata.float())
        return self.head(torch.cat([features.float(), embedded], dim=-1))


class Categorical(nn.Module):
    """One score per level, and a softmax over them."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.width = levels

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """(B, levels) to log-probabilities (B, levels)."""
        return functional.log_softmax(scores, dim=-1)


class Ordinal(nn.Module):
    """One score and ordered thresholds: P(level <= k) = sigmoid(threshold_k - score).

    The proportional-odds model (McCullagh 1980), whose one shared score is also that of CORAL (Cao, Mirjalili &
    Raschka 2020). Thresholds are the first one plus a cumulative sum of positive gaps, so they cannot cross. Their
    initial values make all levels equally likely at a score of 0.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.width = 1
        shares = torch.arange(1, levels, dtype=torch.float64) / levels
        gaps = shares.logit().diff()
        self.cuts = nn.Parameter(torch.cat([shares.logit()[:1], gaps.expm1().log()]).float())

    def thresholds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Increasing thresholds (levels - 1,) and the gaps between them (levels - 2,)."""
        gaps = functional.softplus(self.cuts[1:]) + NARROWEST_BAND
        return self.cuts[:1] + functional.pad(gaps.cumsum(0), (1, 0)), gaps

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """(B, 1) to log-probabilities (B, levels)."""
        thresholds, gaps = self.thresholds()
        return _band_logs(thresholds - scores, gaps)


class AgeRegression(nn.Module):
    """An age in years with one learnt spread, scored by the bands between the borders (logistic distribution).

    The targets are bands, not ages; only the borders, which are in years, make the output an age in years. This equals
    `Ordinal` with fixed thresholds and a learnt scale.
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
    """Log-probabilities of the bands between thresholds, for a logistic distribution.

    sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), and each of these factors has a stable logarithm.
    The gaps b - a are an argument: computed from large distances they would be lost to rounding.

    Args:
        distances: thresholds minus scores, increasing, (B, K).
        gaps: differences of neighbouring thresholds, (K - 1,).

    Returns:
        Log-probabilities below the first threshold, between neighbours, and above the last one, (B, K + 1).
    """
    below, above = functional.logsigmoid(distances), functional.logsigmoid(-distances)
    between = below[..., 1:] + above[..., :-1] + torch.log(-torch.expm1(-gaps))
    return torch.cat([below[..., :1], between, above[..., -1:]], dim=-1)


def _distribution(kind: HeadKind, levels: int, borders: Sequence[float] | None) -> nn.Module:
    if kind == "regression":
        assert borders is not None
        return AgeRegression(borders)
    return Ordinal(levels) if kind == "ordinal" else Categorical(levels)


def _head_kinds(recipe: Recipe, label_space: LabelSpace, bands: Mapping[str, Sequence[float]]) -> dict[str, HeadKind]:
    """The kind of head of each factor.

    Raises:
        UserError: if the classes have no factors, a named factor does not exist, or a regression has no age bands.
    """
    if not label_space.factors:
        raise UserError(f"heads: {recipe.heads}: the classes are not made up of factors; use heads: joint")
    named = {} if isinstance(recipe.heads, str) else dict(recipe.heads)
    if unknown := [name for name in named if name not in label_space.factors]:
        raise UserError(f"heads: no factor {', '.join(unknown)}; this model learns {', '.join(label_space.factors)}")
    for name, kind in named.items():
        if kind != "regression":
            continue
        borders = bands.get(name)
        if borders is None or len(label_space.factors[name]) != len(borders) + 1:
            raise UserError(f"heads.{name}: regression is for the home task's age alone; use ordinal")
        if any(low >= high for low, high in pairwise(borders)):
            raise UserError(f"heads.{name}: the age borders {list(borders)} do not rise; correct them")
    return {name: named.get(name, "classes") for name in label_space.factors}
