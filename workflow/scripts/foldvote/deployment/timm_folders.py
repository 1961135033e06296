"""Trained members as folders that timm loads by itself: config.json, model.safetensors and a model card."""

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import timm
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from foldvote.config.image_size import parse_size
from foldvote.config.recipe import Recipe
from foldvote.data.label_space import known_classes, read_label_space
from foldvote.deployment.timm_card import MemberFacts, model_card
from foldvote.errors import UserError, raise_all
from foldvote.inference.predict_member import encoding_of, load_member
from foldvote.io.files import read_json, write_bytes, write_json
from foldvote.models.factory import normalisation
from foldvote.models.heads import Categorical, FactoredHead, JointHead
from foldvote.models.licences import weights_origin
from foldvote.runtime.job_log import log
from foldvote.runtime.seeding import derive
from foldvote.splits.folds import SplitFiles

Answers = Literal["logits", "log_probabilities", "features"]
TOLERANCE = 1e-5  # of the largest logit or, below 1, absolute
_IMAGES = 4  # drawn images, on which a folder is compared with its member
_CROP_MODES = {"squash": "squash", "pad": "border", "crop": "center"}  # timm's names of what a recipe calls fit


@dataclass(frozen=True)
class PlainNetwork:
    """A member as timm alone makes it.

    Attributes:
        network: the network, with timm's linear classifier or, for features, with none.
        answers: what of the member it gives: its logits; logits whose log-softmax is the member's log-probabilities;
            or only the features, of which the member's head makes its answers.
        classes: number of logits; 0 for features.
    """

    network: nn.Module
    answers: Answers
    classes: int


def export_timm(weights: Sequence[Path], split: SplitFiles, metrics: Path, prediction: Path, folder: Path) -> None:
    """Write each member as `<folder>/<model>-fold<k>/`, which `timm.create_model("local-dir:...")` loads.

    Every folder is loaded by timm and compared with its member before it appears.

    Args:
        weights: the members' model.safetensors, each with its model.json beside it.
        split: classes and folds.
        metrics: ensemble/metrics.json, whose scores the cards quote.
        prediction: ensemble/prediction.json, with the views that were scored.
        folder: the folder to write to.

    Raises:
        UserError: if a member's files are not those that were trained, or what timm loads does not answer as it does.
    """
    raise_all(
        f"{path}: sees metadata, for which timm has no place; drop the model's metadata, or the model"
        for path in weights
        if encoding_of(read_json(path.with_name("model.json")))
    )
    scores, views = read_json(metrics), read_json(prediction)["views"]
    certificate, label_space = read_json(split.certificate), read_label_space(split.classes)
    folder.mkdir(parents=True, exist_ok=True)
    for path in weights:
        about, recipe, member = load_member(path, path.with_name("model.json"), split)
        plain = plain_network(member.eval())
        label_names = list(known_classes(recipe, label_space)[0].classes)
        config = timm_config(plain, recipe, label_names)
        facts = MemberFacts(about, recipe, label_names, scores, views, certificate, config, _head_text(member, plain))
        final = folder / f"{about['model']}-fold{about['fold']}"
        with TemporaryDirectory(dir=folder) as scratch:
            written = Path(scratch) / final.name
            written.mkdir()
            write_json(written / "config.json", config)
            tensors = {name: tensor.contiguous() for name, tensor in plain.network.state_dict().items()}
            write_bytes(written / "model.safetensors", save(tensors, metadata={"format": "pt"}))
            write_bytes(written / "README.md", model_card(facts).encode())
            difference = _difference(written, member, plain, recipe, final.name)
            shutil.rmtree(final, ignore_errors=True)
            written.rename(final)
        what = {"logits": "logits", "log_probabilities": "log-probabilities", "features": "features only"}
        log(f"{final.name}: {what[plain.answers]} of {recipe.net}, largest difference {difference:.1e}")


def plain_network(member: nn.Module) -> PlainNetwork:
    """Turn a member into a network without foldvote's heads, whose answers are the same as far as that is possible.

    A joint head is a linear layer, with multi-sample dropout as well. In a factored head of plain classes the logit of
    a class is the sum of its levels' scores minus a number that all classes share, the sum of the factors'
    log-sum-exps: one linear layer with the sums of the levels' rows has the same log-probabilities. Ordinal and
    regressed factors are no linear functions of the features: the network then ends with the features.

    Args:
        member: the trained network, in evaluation mode; it is not changed.
    """
    name, head = _head(member)
    network = copy.deepcopy(member)
    if isinstance(head, JointHead):
        network.set_submodule(name, _linear(head.linear.weight, head.linear.bias), strict=True)
        return PlainNetwork(network, "logits", head.linear.out_features)
    if not isinstance(head, FactoredHead):
        return PlainNetwork(network, "logits", int(member.num_classes))
    if not all(isinstance(distribution, Categorical) for distribution in head.distributions):
        network.set_submodule(name, nn.Identity(), strict=True)
        return PlainNetwork(network, "features", 0)
    rows = [part.double() for part in head.scores.linear.weight.split(head.widths)]
    shifts = [part.double() for part in head.scores.linear.bias.split(head.widths)]
    levels = [head.get_buffer(f"level_of_class_{number}") for number in range(len(head.factors))]
    weight = torch.stack([row[level] for row, level in zip(rows, levels, strict=True)]).sum(dim=0)
    bias = torch.stack([shift[level] for shift, level in zip(shifts, levels, strict=True)]).sum(dim=0)
    network.set_submodule(name, _linear(weight, bias), strict=True)
    return PlainNetwork(network, "log_probabilities", len(bias))


def timm_config(plain: PlainNetwork, recipe: Recipe, label_names: Sequence[str]) -> dict[str, Any]:
    """The content of config.json, from which timm builds the network and its preprocessing.

    Args:
        plain: the network.
        recipe: its recipe; net, size, roi, fit and pretrained are used.
        label_names: of its logits.
    """
    network = plain.network
    height, width = parse_size(recipe.size)
    known: dict[str, Any] = dict(network.pretrained_cfg)
    mean, std = (values.flatten().tolist() for values in normalisation(network, torch.device("cpu")))
    fixed = bool(known.get("fixed_input_size"))
    licence = weights_origin(recipe.net, recipe.weights).licence
    pretrained = {
        "custom_load": False,
        "input_size": [3, height, width],
        "fixed_input_size": fixed,
        "interpolation": "box",
        "crop_pct": 1.0,
        "crop_mode": _CROP_MODES[recipe.packed.fit],
        "mean": [round(value, 6) for value in mean],
        "std": [round(value, 6) for value in std],
        "num_classes": plain.classes,
        "pool_size": None,
        "first_conv": known.get("first_conv"),
        "classifier": known.get("classifier"),
    }
    config: dict[str, Any] = {
        "architecture": recipe.net.split(".")[0],
        "num_classes": plain.classes,
        "num_features": network.num_features,
        "pretrained_cfg": pretrained | ({"license": licence} if licence else {}),
    }
    if isinstance(pool := getattr(network, "global_pool", None), str):
        config["global_pool"] = pool
    if plain.classes:
        config["label_names"] = list(label_names)
    if fixed:
        config["model_args"] = {"img_size": [height, width]}
    return config


def _head(member: nn.Module) -> tuple[str, nn.Module | None]:
    """A head of foldvote and its name in the network; no head where timm's own classifier was kept."""
    heads = ((name, layer) for name, layer in member.named_modules() if isinstance(layer, JointHead | FactoredHead))
    return next(heads, ("", None))


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight.detach().float(), "bias": bias.detach().float()})
    return layer.eval()


def _head_text(member: nn.Module, plain: PlainNetwork) -> str:
    """What a reader of the card must know of the head."""
    head = _head(member)[1]
    if not isinstance(head, FactoredHead):
        return "Its logits are those of the member."
    factors = ", ".join(head.factors)
    if plain.answers == "log_probabilities":
        return (
            f"The member has one softmax per factor ({factors}), and the log-probability of a class is the sum of its "
            "levels'. Here these are merged into one linear layer, whose log_softmax gives the same log-probabilities; "
            "the logits themselves differ from them by a number that all classes of an image share."
        )
    curved = [
        name
        for name, distribution in zip(head.factors, head.distributions, strict=True)
        if not isinstance(distribution, Categorical)
    ]
    return (
        f"**This folder has no classifier.** The member's head of {', '.join(curved)} is ordinal or a regression, "
        "which is no linear function of the features, so timm has no layer for it. The network gives the features that "
        "the member's head reads: use it as a backbone. For predictions take the run itself."
    )


def _difference(folder: Path, member: nn.Module, plain: PlainNetwork, recipe: Recipe, name: str) -> float:
    """The largest difference between the answers of a member and of its folder as timm loads it, on drawn images.

    Raises:
        UserError: if timm does not load the folder, or the difference is not negligible.
    """
    generator = torch.Generator().manual_seed(derive(0, "timm", name))
    images = torch.randn(_IMAGES, 3, *parse_size(recipe.size), generator=generator)
    try:
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except Exception as error:
        raise UserError(
            f"{name}: timm {timm.__version__} does not load {recipe.net} from a folder "
            f"({' '.join(str(error).split())[:200]}); use the member's own files in train/"
        ) from error
    with torch.inference_mode():
        expected, given = answers_of(member, images, plain.answers), loaded(images)
        if plain.answers == "log_probabilities":
            given = functional.log_softmax(given, dim=-1)
    difference = float((expected - given).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise UserError(
            f"{name}: timm {timm.__version__} builds another {recipe.net} from its folder (its answers differ by up to "
            f"{difference:.1e}); use the member's own files in train/"
        )
    return difference


def answers_of(member: nn.Module, images: torch.Tensor, answers: Answers) -> torch.Tensor:
    """What a member answers of normalised images (B, 3, height, width): logits (B, classes) or features (B, F)."""
    if answers != "features":
        return member(images)
    seen: list[torch.Tensor] = []
    head = _head(member)[1]
    assert head is not None
    hook = head.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    member(images)
    hook.remove()
    return seen[0]
