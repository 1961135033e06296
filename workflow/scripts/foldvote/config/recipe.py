"""The recipe of a model: every key with its default, its bounds and its meaning.

What the names of losses, schedules, mixes and heads stand for is in foldvote.training.losses,
foldvote.training.optimizer, foldvote.training.mixup and foldvote.models.heads.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, ValidationInfo, field_validator, model_validator

from foldvote.config.augment import DEFAULT_AUGMENT, DEVICE_STEPS, Augment, expanded
from foldvote.config.base import FilePath, Fit, Name, Roi, Section, Size, named
from foldvote.config.batch_parts import accumulation_faults
from foldvote.config.first_round import Distill, Pseudo, Several
from foldvote.config.image_size import Framing, parse_size
from foldvote.config.losses import Consistency, CrossEntropy, Losses, OfFactors, SupCon
from foldvote.config.metadata import UsedMetadata
from foldvote.config.metric_names import MetricName
from foldvote.config.mixes import Mixes
from foldvote.config.named_weights import weights_faults, weights_name
from foldvote.config.probe import REFUSED, as_probe
from foldvote.config.schedules import Cosine, Schedule
from foldvote.config.timm_names import (
    known_name,
    net_names,
    optimizer_faults,
    optimizer_names,
    patch_stride,
    tiling_faults,
)
from foldvote.config.treatment import Treatment
from foldvote.io.files import sha256_bytes

OFFLINE = "resources/weights/tf_efficientnet_lite0.safetensors (net: tf_efficientnet_lite0), which needs no download"


# --- heads and targets

HeadKind = Literal["classes", "ordinal", "regression"]


class Sampler(Section):
    """Which images an epoch consists of: drawn with replacement, images of rare classes more often."""

    by: Literal["class", "stratum"] = "class"
    """What is balanced."""
    power: float = Field(default=1.0, gt=0, le=1)
    """1 draws every class (or stratum) equally often; smaller values balance less."""


class Progressive(Section):
    """Smaller images in the first epochs, which are resized again on the way into the network."""

    size: Size
    epochs: int = Field(ge=1)
    """Number of first epochs with images of this size; validation and the epochs that follow have the recipe's."""


class Recipe(Section):
    """How one model is made and trained."""

    kind: Literal["network", "probe"] = "network"
    """network: all of the net is trained. probe: a logistic regression on the features of the frozen pretrained net,
    which takes seconds; it has net, pretrained, size, roi and factors, and ignores the keys of training."""
    net: str
    """Any name known to timm."""
    pretrained: StrictBool | FilePath | None = None
    """Weights to start from. true: timm's own, of the tag of the net or of timm's default tag; a tag of timm, such as
    a1_in1k; a local file (.safetensors or .pth); null: from scratch."""
    size: Size = "128x96"
    roi: Roi = "none"
    fit: Fit = "squash"
    """How a picture, or its region, of another aspect ratio becomes one of `size`: squash stretches it; pad keeps all
    of it between grey bars; crop keeps its centre. Faces are cut in the aspect ratio of `size` anyway."""
    pack: float = Field(default=1.0, ge=1, le=2)
    """Sides of the packed images, as a multiple of those of `size`. Above 1, crops of the augmentation and crop views
    are cut from the larger image and so have real pixels; whatever is not cut is resized to `size`."""
    factors: Several | None = None
    """The factors that this model learns; null: all. In the ensemble, the probabilities of models of
    different factors are multiplied."""
    heads: Literal["joint", "factored"] | dict[Name, HeadKind] = "joint"
    """joint: one logit per class. factored: one head per factor, whose log-probabilities are added. A mapping gives the
    kind of some factors' heads: classes, ordinal, or (only for the home task's age) regression to bands."""
    metadata: UsedMetadata = None
    """Columns of `data.metadata` that the network sees beside the image: true, or a list of names; null: none."""
    drop_rate: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the classifier."""
    dropout_samples: int = Field(default=1, ge=1, le=32)
    """Number of dropout masks whose logits are averaged (multi-sample dropout, Inoue 2019); 1 is plain dropout."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Rate of stochastic depth, for nets that support it."""
    drop_path_schedule: Literal["constant", "rising", "falling"] = "constant"
    """rising: from 0 to `drop_path` over the epochs (scheduled drop path, Zoph et al., CVPR 2018); falling: the other
    way (early dropout, Liu et al., ICML 2023)."""

    epochs: int = Field(default=10, ge=1, le=10_000)
    """Passes over the training images."""
    progressive: Progressive | None = None
    """Progressive resizing: the first epochs with smaller images, such as {size: 64x48, epochs: 3}, are faster."""
    batch_size: int = Field(default=64, ge=2, le=65_536)
    """Images in one optimizer step."""
    accumulate: int = Field(default=1, ge=1, le=4096)
    """Number of parts that a batch is divided into (gradient accumulation): less memory, the same optimizer step except
    for batch normalisation. Where several processes train a member, each takes its share of the parts."""
    group_shots: int | None = Field(default=None, ge=2, le=1024)
    """Number of images of one group that come together: a batch has so many of each of batch_size / group_shots groups.
    null: groups do not matter."""
    optimizer: str = "adamw"
    """Any optimizer of timm, by name."""
    optimizer_args: dict[str, Any] = Field(default={})
    """Further arguments of the optimizer, such as {momentum: 0.9}."""
    lr: float = Field(default=1e-3, gt=0, le=100)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.05, ge=0, le=10)
    """Weight decay; biases and normalisation weights have none."""
    layer_decay: float | None = Field(default=None, gt=0, lt=1)
    """Factor of the learning rate from each layer to the one before it; null: all layers learn at the same rate."""
    head_lr_factor: float = Field(default=1.0, gt=0, le=1000)
    """Factor of the learning rate of the head: a new head may learn faster than pretrained weights."""
    freeze_epochs: int = Field(default=0, ge=0)
    """Number of first epochs in which only the head is trained; equal to `epochs`: feature extraction."""
    sam: float | None = Field(default=None, gt=0, le=10)
    """Radius of sharpness-aware minimisation (Foret et al., ICLR 2021), such as 0.05: the gradient is that of weights
    so far uphill. Every step then takes twice the time; null: plain steps."""
    clip_norm: float | None = Field(default=5.0, gt=0)
    """Largest gradient norm; null: no clipping."""
    schedule: Annotated[Schedule, BeforeValidator(named)] = Cosine(name="cosine")
    """The learning-rate schedule after the warm-up."""
    warmup_epochs: float = Field(default=1.0, ge=0)
    """Linear warm-up, in epochs."""

    loss: Losses = Field(default=[CrossEntropy(name="cross_entropy")])
    """The terms of the training loss, which is their weighted sum."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of the target spread over all classes, in training only (Szegedy et al., CVPR 2016)."""
    class_weights: Literal["none", "inverse", "effective"] = "none"
    """Weight of an image by its class's count: none, inverse, or by effective number (Cui et al., CVPR 2019)."""
    sampler: Sampler | None = None
    """Draws images of rare classes more often; null: an epoch uses each image once."""
    labels: Treatment = Treatment()
    pseudo: Pseudo | None = None
    """Learn from pseudo-labelled test images too (Lee, ICML workshops 2013), in a second round; null: no."""
    distill: Distill | None = None
    """Learn from what other models predict as well (Hinton et al., arXiv:1503.02531, 2015); null: no."""

    augment: Augment = Field(default=DEFAULT_AUGMENT, validate_default=True)
    """Random changes to training images: a policy (none, base, custom, light, medium, heavy), short steps (hflip,
    crop, rotate, colour, erase, clahe) and transforms of albumentations by name, in order."""
    augment_on: Literal["loader", "device"] = "loader"
    """What computes `augment`: the processes that load images, one image at a time; or the device that trains, a whole
    batch at once, which has hflip, crop, rotate, colour and erase only."""
    mix: Mixes = Field(default=[])
    """Mixes of the images of a batch: mixup, cutmix, half_face; each batch gets at most one of those that are given."""
    mix_off_epochs: int = Field(default=0, ge=0)
    """Number of last epochs in which no batch is mixed."""

    epoch: Literal["last", "best"] = "last"
    """Which epoch predicts: the last, or the best by `best_by`, whose out-of-fold score is then optimistic."""
    best_by: MetricName | Literal["loss"] = "macro_f1"
    """The validation score that chooses the best epoch; where it decides anything, by default that of `metric`."""
    soup: int = Field(default=1, ge=1, le=20)
    """Number of best epochs whose weights are averaged (model soup, Wortsman et al., ICML 2022); 1: only the best."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, used for validation and prediction; null: none."""
    ema_warmup: Literal["tensorflow", "timm"] = "tensorflow"
    """How the decay rises to `ema` after n updates. tensorflow: (1 + n) / (10 + n). timm: 1 - (1 + n) ** (-2/3), as
    its --model-ema-warmup does."""
    swa: float | None = Field(default=None, ge=0, lt=1)
    """Share of the epochs after which averaging of the weights begins (SWA, Izmailov et al., UAI 2018); null: never."""
    patience: int | None = Field(default=None, ge=1)
    """Early stopping: stop after this many epochs without improvement; null: never."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Start no epoch that would probably end after this many minutes of training; null: no limit."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 or fp16 on a GPU, whichever it supports well, and fp32 on a CPU."""
    channels_last: bool | None = None
    """Memory layout; null: on a GPU, and on a CPU for predictions only."""
    compile: Literal["auto", True, False] = "auto"
    """Train with torch.compile: about a minute more at the start, faster steps afterwards. auto: on a GPU, with
    `runtime.reproducible: false`, if a short trial finds that it pays; else not."""
    sync_bn: bool = False
    """Where several GPUs train a member: batch normalisation over the images of all GPUs, not of each separately."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time. Batch-normalisation statistics
    are then updated twice in each step."""

    @model_validator(mode="before")
    @classmethod
    def _probes_are_not_trained(cls, values: Any) -> Any:
        is_probe = isinstance(values, dict) and values.get("kind") == "probe"
        return as_probe(values, cls.model_fields) if is_probe else values

    @field_validator("net")
    @classmethod
    def _known_net(cls, net: str) -> str:
        return known_name(net, net.split(".")[0], net_names(), "timm knows no net")

    @field_validator("pretrained")
    @classmethod
    def _null_if_false(cls, pretrained: bool | str | None) -> bool | str | None:
        return None if pretrained is False else pretrained

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        return known_name(name, name, optimizer_names(), "timm has no optimizer")

    @field_validator("optimizer_args")
    @classmethod
    def _known_arguments(cls, arguments: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if faults := list(optimizer_faults(info.data.get("optimizer", ""), arguments)):
            raise ValueError("\n".join(faults))
        return arguments

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if faults := list(_recipe_faults(self)):
            raise ValueError("\n".join(faults))
        return self

    @property
    def packed(self) -> Framing:
        """What of its images the model sees, and how they are packed."""
        size = "x".join(str(round(side * self.pack)) for side in parse_size(self.size))
        return Framing(size, self.roi, "squash" if self.roi.startswith("face-") else self.fit)

    def with_epochs(self, epochs: int) -> "Recipe":
        """The same with fewer epochs, within which the learning rate, and what belongs to some epochs, runs its course.

        Args:
            epochs: from 1 to those of the recipe; as many leave it as it is.
        """
        if epochs == self.epochs:
            return self
        changes: dict[str, Any] = {"epochs": epochs, "warmup_epochs": self.warmup_epochs * epochs / self.epochs}
        changes |= {name: getattr(self, name) * epochs // self.epochs for name in ("freeze_epochs", "mix_off_epochs")}
        if self.progressive is not None:
            first = self.progressive.epochs * epochs // self.epochs
            changes["progressive"] = self.progressive.model_copy(update={"epochs": first}) if first else None
        if self.schedule.name == "step":
            every = self.schedule.every * epochs / self.epochs
            changes["schedule"] = self.schedule.model_copy(update={"every": every})
        return self.model_copy(update=changes)

    @property
    def chooses_epochs(self) -> bool:
        """Whether `best_by` decides anything: the epoch, the end of training, or a drop of the learning rate."""
        return self.epoch == "best" or self.patience is not None or self.schedule.name == "plateau"

    @property
    def tells_groups(self) -> bool:
        """Whether a training step is told the groups of its images."""
        agree = any(isinstance(term, Consistency) for term in self.loss)
        return agree or any(mix.partner == "group" for mix in self.mix)

    @property
    def contrasts(self) -> bool:
        """Whether the loss is of the features as well."""
        return any(isinstance(term, SupCon) for term in self.loss)

    @property
    def named_weights(self) -> str | None:
        """The name of timm's weights that `pretrained` asks for, such as resnet50.a1_in1k; None for a file or null."""
        return weights_name(self.net, self.pretrained)

    @property
    def pretrained_file(self) -> str | None:
        """The file that `pretrained` names; None for weights by name, or null."""
        return self.pretrained if isinstance(self.pretrained, str) and self.named_weights is None else None

    @property
    def weights(self) -> str | None:
        """The weights to start from: their name or their file; None: from scratch."""
        return self.named_weights or self.pretrained_file

    @property
    def weights_folder(self) -> str:
        """The weights as a part of paths: timm's name of them, or that of the file and a digest of its path."""
        path = self.pretrained_file or ""
        stem = re.sub(r"[^A-Za-z0-9_.-]", "_", path.rpartition("/")[2].rpartition(".")[0])
        return self.named_weights or f"{stem}-{sha256_bytes(path.encode())[:8]}"

    @property
    def definite(self) -> "Recipe":
        """The same with the tag of its weights spelt out, whatever timm's default tag is or will be."""
        name = self.named_weights
        return self if name is None else self.model_copy(update={"net": name, "pretrained": name})

    @property
    def first_round(self) -> list[str]:
        """Models whose test predictions this one learns from."""
        taught = self.teachers if self.distill and self.distill.test_images else []
        return self.pseudo.models if self.pseudo else taught

    @property
    def teachers(self) -> list[str]:
        """Models whose predictions of the training images this one learns from."""
        return self.distill.models if self.distill else []

    @property
    def learns_from(self) -> list[str]:
        """Models that must be trained before this one."""
        return list(dict.fromkeys([*self.teachers, *self.first_round]))


def _recipe_faults(recipe: Recipe) -> Iterator[str]:
    yield from weights_faults(recipe.net, recipe.pretrained)
    yield from tiling_faults(recipe.net, recipe.size, patch_stride(recipe.net.split(".")[0]))
    if recipe.warmup_epochs >= recipe.epochs > 1:
        yield f"warmup_epochs {recipe.warmup_epochs} leaves nothing of {recipe.epochs} epochs; lower it"
    if recipe.roi.startswith("box-"):
        left, top, right, bottom = (int(part) for part in re.findall(r"\d+", recipe.roi))
        if right <= left or bottom <= top:
            yield f"roi {recipe.roi} is empty: it must be box-LEFT-TOP-RIGHT-BOTTOM"
    if recipe.freeze_epochs > recipe.epochs:
        yield f"freeze_epochs {recipe.freeze_epochs} is more than the {recipe.epochs} epochs; lower it"
    if recipe.kind == "probe":
        if recipe.weights is None:
            yield "kind: probe needs a net that has learnt; set pretrained, such as " + OFFLINE
        if recipe.heads != "joint":
            yield "heads: a probe (kind: probe) has one logit per class; use heads: joint"
        fresh = type(recipe).model_fields
        for key in (key for key in REFUSED if getattr(recipe, key) != fresh[key].default):
            yield f"{key}: a probe (kind: probe) {REFUSED[key]}; drop it"
    if recipe.freeze_epochs and recipe.pretrained is None:
        yield "freeze_epochs would keep drawn weights as they are; set pretrained, or drop it"
    yield from accumulation_faults(
        recipe.batch_size, recipe.accumulate, recipe.group_shots, draws=recipe.sampler is not None
    )
    if recipe.tells_groups and recipe.group_shots is None:
        yield "consistency and partner: group need several images of a group in a batch; set group_shots, such as 2"
    if all(isinstance(term, OfFactors) for term in recipe.loss):
        yield f"loss: {recipe.loss[0].name} learns no labels; add another term, such as cross_entropy"
    if recipe.contrasts and recipe.compile is True:
        yield "loss: sup_con is of features within the net, which compile hides; drop one of them"
    if recipe.ema is not None and recipe.swa is not None:
        yield "ema and swa are two averages of the same weights; set one of them"
    if recipe.ema is None and recipe.ema_warmup != "tensorflow":
        yield f"ema_warmup {recipe.ema_warmup} without an average; set ema, or drop it"
    if recipe.soup > 1 and recipe.epoch == "last":
        yield f"soup {recipe.soup} averages the best epochs; say epoch: best as well, or drop it"
    if recipe.dropout_samples > 1 and recipe.drop_rate == 0:
        yield "dropout_samples without dropout are all alike; set drop_rate"
    if recipe.first_round and recipe.sampler and recipe.sampler.by == "stratum":
        key = "pseudo" if recipe.pseudo else "distill.test_images"
        yield f"{key}: test images have no stratum to be drawn by; use sampler: {{by: class}}, or drop one of them"
    if recipe.pseudo and recipe.distill:
        yield "pseudo and distill both add test images; set one of them (distill.test_images takes them all)"
    missing = {step.name: None for step in expanded(recipe.augment) if step.name not in DEVICE_STEPS}
    if recipe.augment_on == "device" and missing:
        yield (
            f"augment_on: device does not have {', '.join(missing)}; it has {', '.join(DEVICE_STEPS)}, and policies of "
            "these; change augment, or leave augment_on out"
        )
    if recipe.augment_on == "device" and recipe.pack > 1:
        yield "augment_on: device takes images that are packed in their size; leave pack or augment_on out"
    if sum(mix.p for mix in recipe.mix) > 1 + 1e-9:
        yield f"mix: the shares p add up to {sum(mix.p for mix in recipe.mix):g}; a batch is mixed once, so at most 1"
    if recipe.mix_off_epochs and not recipe.mix:
        yield "mix_off_epochs without a mix to switch off; set mix, or drop it"
    if recipe.mix_off_epochs >= recipe.epochs:
        yield f"mix_off_epochs {recipe.mix_off_epochs} leaves none of {recipe.epochs} epochs with mixes; lower it"
    if recipe.drop_path_schedule != "constant" and (recipe.drop_path == 0 or recipe.compile is True):
        why = "drop_path is 0" if recipe.drop_path == 0 else "compile would compile each epoch anew"
        yield f"drop_path_schedule {recipe.drop_path_schedule}: {why}; change one"
    if recipe.progressive is not None:
        yield from _progressive_faults(recipe, recipe.progressive)


def _progressive_faults(recipe: Recipe, progressive: Progressive) -> Iterator[str]:
    stride = patch_stride(recipe.net.split(".")[0])
    yield from (f"progressive: {fault}" for fault in tiling_faults(recipe.net, progressive.size, stride))
    small, whole = parse_size(progressive.size), parse_size(recipe.size)
    if small == whole or small[0] > whole[0] or small[1] > whole[1]:
        yield f"progressive: {progressive.size} is not smaller than size {recipe.size}; lower it"
    if progressive.epochs >= recipe.epochs:
        yield f"progressive: epochs {progressive.epochs} leaves none of {recipe.epochs} with the whole size; lower it"
