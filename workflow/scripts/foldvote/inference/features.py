"""Features of a frozen network: what its classifier gets, of every packed image under every view."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from foldvote.config.image_size import parse_size
from foldvote.config.named_weights import pinned_digest
from foldvote.config.recipe import Recipe
from foldvote.config.tta import view_name
from foldvote.data.label_space import LabelSpace
from foldvote.data.packed_images import open_packed_images
from foldvote.errors import UserError
from foldvote.inference.feature_files import feature_ids, feature_pieces, feature_writer, features_origin
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import views_of
from foldvote.io.files import read_json, write_json
from foldvote.io.ids import positions_in
from foldvote.models.factory import build_model, head_modules
from foldvote.runtime.device import name_nondeterminism
from foldvote.runtime.job_log import log, track
from foldvote.runtime.resources import JobResources

_AT_ONCE = 1024  # images whose features are in memory


@name_nondeterminism()
def compute_features(
    recipe: Recipe,
    pretrained: Path,
    expected: str,
    images_path: Path,
    views: list[str | dict[str, Any]],
    path: Path,
    timing: Path,
    resources: JobResources,
) -> None:
    """Write the features of all packed images of a split.

    Args:
        recipe: for net, size and roi.
        pretrained: the local weights file of the net.
        expected: the SHA-256 that it must have; empty: any.
        images_path: the packed images.
        views: the test-time views of the checked configuration.
        path: the parquet file to write, see `feature_files.features_schema`.
        timing: the JSON file to write, with seconds, images, views and device.
        resources: the resources of this job.

    Raises:
        UserError: if the net has no linear classifier, or the weights are others or do not fit it.
    """
    digest = pinned_digest(pretrained, expected)
    images = open_packed_images(images_path, recipe.packed, None)
    device = resources.device(recipe)
    model, width = feature_network(recipe, pretrained)
    ready, names = views_of(recipe, views), [view_name(view) for view in views]
    record = features_origin(recipe, digest, images.record["data_sha256"]) | {"views": names}
    predict = partial(predict_logits, device.place(model), images)
    ids, started = list(images.row_of), time.monotonic()
    starts = range(0, len(images), _AT_ONCE)
    with feature_writer(path, names, width, record) as write:
        for start in track(starts, f"features of {recipe.net}, {_AT_ONCE:,} images each", len(starts)):
            rows = np.arange(start, min(start + _AT_ONCE, len(images)))
            found = predict(rows, ready, device, resources.runtime.predict_batch)
            write(ids[start : start + _AT_ONCE], found)
    seconds = time.monotonic() - started
    write_json(timing, {"seconds": seconds, "images": len(images), "views": names, "device": device.name})
    log(f"{path}: {width:,} features of {len(images):,} images x {len(names)} views in {seconds:.1f} s")


def feature_network(recipe: Recipe, pretrained: Path) -> tuple[nn.Module, int]:
    """A pretrained net without its classifier, on the CPU, and the number of its features.

    Args:
        recipe: for net, size and roi.
        pretrained: the local weights file of the net.

    Raises:
        UserError: if the net's logits are anything else than a linear layer of its features.
    """
    model = build_model(recipe, LabelSpace(("one", "two")), seed=0, weights=pretrained).eval()
    head = probe_head(model, recipe.net)
    name = next(name for name, layer in model.named_modules() if layer is head)
    image = torch.randn(1, 3, *parse_size(recipe.size), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = model(image)
        model.set_submodule(name, nn.Identity(), strict=True)
        features = model(image)
        same = features.shape == (1, head.in_features) and torch.allclose(head(features), logits, atol=1e-4, rtol=1e-3)
    if not same:
        raise _unfit(recipe.net)
    return model, head.in_features


def probe_head(model: nn.Module, net: str) -> nn.Linear:
    """The classifier of a net.

    Raises:
        UserError: if it is not one linear layer with a bias.
    """
    heads = head_modules(model)
    if len(heads) != 1 or not isinstance(heads[0], nn.Linear) or heads[0].bias is None:
        raise _unfit(net)
    return heads[0]


def predict_from_features(
    model: nn.Module, path: Path, ids: Sequence[str], views: Sequence[str]
) -> tuple[dict[str, np.ndarray], float]:
    """The logits of a probe, from its features.

    Args:
        model: the member, on the CPU.
        path: the features; beside it lies their timing.
        ids: the images.
        views: names of views.

    Returns:
        By the name of each view float32 (images, classes) in the order of the ids; and the seconds that the features of
        these images and views took.

    Raises:
        UserError: if an image is not there.
    """
    place = positions_in(pa.array(ids, pa.string()), feature_ids(path))
    if (place < 0).any():
        raise UserError(f"{path}: lacks image {ids[int((place < 0).argmax())]}; delete it and run your command again")
    head, logits = probe_head(model.eval(), type(model).__name__), {}
    with torch.inference_mode():
        for view in views:
            pieces = [head(torch.from_numpy(piece.copy())).numpy() for piece in feature_pieces(path, view)]
            logits[view] = np.concatenate(pieces)[place]
    made = read_json(path.with_suffix(".json"))
    share = len(ids) / max(made["images"], 1) * len(views) / len(made["views"])
    return logits, made["seconds"] * share


def _unfit(net: str) -> UserError:
    return UserError(
        f"{net}: its logits are not one linear layer of its features; use kind: network or another net, and for the "
        "leak check name another model in leak_check.model, or set leak_check: null"
    )
