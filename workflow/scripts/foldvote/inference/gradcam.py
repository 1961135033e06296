"""Grad-CAM: heatmaps of the image regions that support a class (Selvaraju et al., "Grad-CAM", ICCV 2017)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foldvote.data.label_space import known_classes, read_label_space
from foldvote.data.packed_images import PackedImages, open_packed_images
from foldvote.evaluation.vote_table import votes_schema
from foldvote.inference.forward import halved_until_it_fits
from foldvote.inference.heatmaps import ATTENTION, ClassHeatmap, choose_images, heatmap_rows
from foldvote.inference.predict_member import load_member
from foldvote.inference.tta import IDENTITY, Move, plain_view
from foldvote.io.parquet import read_record, read_table, write_table
from foldvote.io.paths import member_of
from foldvote.models.factory import normalisation
from foldvote.runtime.device import Device, name_nondeterminism
from foldvote.runtime.job_log import log
from foldvote.runtime.resources import JobResources
from foldvote.splits.folds import SplitFiles

FEWEST_CELLS = 4  # along the shorter side; a coarser map cannot locate anything


def write_attention(
    weights: Sequence[Path], images_path: Path, split: SplitFiles, votes_path: Path, resources: JobResources, path: Path
) -> None:
    """Write heatmaps of the members of one model for some of their validation images.

    A wrong prediction gets two heatmaps: for the predicted class and for the true one.

    Args:
        weights: `…/model=<m>/fold=<k>/model.safetensors` of each fold of the model, with model.json beside it.
        images_path: training images, packed as the model's recipe says.
        split: classes and folds.
        votes_path: ensemble/oof.parquet.
        resources: the resources of this job.
        path: the table to write, schema heatmaps.ATTENTION; without rows if the network has no suitable feature map.

    Raises:
        UserError: if the inputs are missing, damaged or do not belong together.
    """
    label_space = read_label_space(split.classes)
    chosen = choose_images(read_table(votes_path, votes_schema(label_space.classes, labelled=True), key=("image_id",)))
    heatmaps: list[ClassHeatmap] = []
    for file in weights:
        model_name, fold = member_of(file)
        own = chosen[chosen["fold"] == fold]
        if own.empty:
            continue
        about, recipe, model = load_member(file, file.with_name("model.json"), split)
        device = resources.device(recipe)
        images = open_packed_images(images_path, recipe.packed, about["data_sha256"])
        known, code_of = known_classes(recipe, label_space)
        pairs = [
            (row["image_id"], code)
            for row in own.to_dict("records")
            for code in dict.fromkeys((row["prediction"], row["label"]))
        ]
        codes = code_of[[code for _, code in pairs]]
        ids, batch = [image_id for image_id, _ in pairs], resources.runtime.predict_batch
        with name_nondeterminism():
            heats = _heatmaps(device.place(model), images, ids, codes, device, batch, plain_view(recipe).move)
        if heats is None:
            log(f"{model_name}: this net has no maps of what it sees, so that nothing is shown of where it looks")
            break
        heatmaps += [
            ClassHeatmap(image_id, model_name, fold, code, known.classes[own_code], heat)
            for (image_id, code), own_code, heat in zip(pairs, codes, heats, strict=True)
        ]
    place = {image_id: number for number, image_id in enumerate(chosen["image_id"])}
    heatmaps.sort(key=lambda one: place[one.image_id])
    record = {"split_sha256": read_record(votes_path)["split_sha256"]}
    write_table(heatmap_rows(heatmaps), path, ATTENTION, ("image_id", "code"), record)


def class_heat(model: nn.Module, images: torch.Tensor, codes: torch.Tensor) -> npt.NDArray[np.float64] | None:
    """Compute a heatmap of one class per image, on the deepest feature map with enough cells.

    Args:
        model: a timm network in evaluation mode; grad_checkpointing is switched off, because it hides the stages.
        images: normalised, (images, 3, height, width).
        codes: one class per image, int64 (images,).

    Returns:
        float64 (images, rows, columns) in 0..1: the largest value of each image is 1, or all are 0 if nothing supports
        the class. None if the network has no feature map of at least FEWEST_CELLS rows and columns that its output
        depends on.
    """
    if hasattr(model, "set_grad_checkpointing"):
        model.set_grad_checkpointing(enable=False)
    stages = list(getattr(model, "feature_info", None) or [])
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        return model.get_submodule(name).register_forward_hook(lambda _m, _i, out: seen.__setitem__(name, out))

    named = dict(model.named_modules())
    hooks = [keep(stage["module"]) for stage in stages if stage.get("module") in named]
    try:
        with torch.enable_grad():
            logits = model(images.requires_grad_())
            score = logits.float().gather(1, codes[:, None]).sum()
            tensors = [out for out in seen.values() if isinstance(out, torch.Tensor)]
            slopes = torch.autograd.grad(score, tensors, allow_unused=True) if tensors else ()
    finally:
        for hook in hooks:
            hook.remove()
    shapes = {name: stage["num_chs"] for stage in stages if (name := stage.get("module")) in seen}
    names = [name for name, out in seen.items() if isinstance(out, torch.Tensor)]
    for name, features, slope in reversed(list(zip(names, tensors, slopes, strict=True))):
        maps = None if slope is None else _as_maps(features.detach(), slope, shapes[name], model)
        if maps is None:
            continue
        features, slope = maps
        if min(features.shape[-2:]) < FEWEST_CELLS or not slope.abs().sum() > 0:
            continue
        heat = (slope.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).clamp(min=0).double()
        most = heat.amax(dim=(1, 2), keepdim=True)
        return (heat / most.clamp(min=torch.finfo(torch.float64).tiny)).cpu().numpy()
    return None


def _heatmaps(
    model: nn.Module,
    images: PackedImages,
    ids: Sequence[str],
    codes: npt.NDArray[np.int64],
    device: Device,
    batch_size: int,
    move: Move = IDENTITY.move,
) -> list[npt.NDArray[np.uint8]] | None:
    """Compute heatmaps of packed images, uint8 (rows, columns); `codes` are of the model's own label space.

    `move` makes what the network sees of normalised images.
    """
    model.eval().requires_grad_(requires_grad=False)
    mean, std = normalisation(model, device.torch_device)
    rows = images.rows(list(ids))

    def predict(images_at_once: int) -> list[npt.NDArray[np.uint8]] | None:
        heats: list[npt.NDArray[np.uint8]] = []
        for start in range(0, len(rows), images_at_once):
            part = slice(start, start + images_at_once)
            raw = torch.from_numpy(np.stack([images[row] for row in rows[part]]))
            asked = torch.from_numpy(np.asarray(codes[part], np.int64)).to(device.torch_device)
            heat = class_heat(model, move(device.normalise(raw, mean, std)), asked)
            if heat is None:
                return None
            heats.extend((255 * heat).round().astype(np.uint8))
        return heats

    return halved_until_it_fits(predict, min(batch_size, len(rows)), images.shape[:2], device)


def _as_maps(
    features: torch.Tensor, slope: torch.Tensor, channels: int, model: nn.Module
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Reshape features and their gradient to (images, channels, rows, columns).

    Accepts channels first, channels last, and patch tokens; None for any other shape.
    """
    if features.ndim == 4 and features.shape[1] == channels:
        return features.float(), slope.float()
    if features.ndim == 4 and features.shape[3] == channels:
        return features.permute(0, 3, 1, 2).float(), slope.permute(0, 3, 1, 2).float()
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if features.ndim != 3 or grid is None or features.shape[1] < grid[0] * grid[1]:
        return None
    first = features.shape[1] - grid[0] * grid[1]  # class and register tokens come before the patches

    def folded(tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, first:].transpose(1, 2).reshape(len(tokens), channels, *grid).float()

    return folded(features), folded(slope)
