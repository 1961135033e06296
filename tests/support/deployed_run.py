"""A finished run of tiny networks with drawn weights on drawn images, made by the library without any training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from foldvote.config.data import Images
from foldvote.config.ensemble import Submission, Vote
from foldvote.config.folds import Folds
from foldvote.config.recipe import Recipe
from foldvote.config.runtime import Runtime
from foldvote.data.label_space import LabelSpace, factor_label_space, known_classes, read_label_space
from foldvote.data.packed_images import PackedImages, pack_images
from foldvote.ensemble.build_ensemble import EnsembleFiles, make_ensemble
from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.ensemble.review import ReviewFiles, ReviewInputs, write_review
from foldvote.inference.predict_member import PartFiles, predict_member
from foldvote.io.files import sha256_file, write_json
from foldvote.models.factory import build_model, normalisation
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import derive
from foldvote.splits.folds import SplitFiles, make_folds, read_folds
from support.data_folders import encoded, picture, put
from support.tiny_member import manifest_row, write_manifest

HOME = factor_label_space({"mask": ("wear", "not"), "age": ("young", "old", "oldest")})
RULES = Images(min_side=8)
VIEWS = ["hflip", "identity"]
MODEL = {"net": "test_resnet", "size": "32x24"}


@dataclass(frozen=True)
class DeployedRun:
    """A finished run: `results` as the workflow leaves it, and the photographs below `root`."""

    root: Path
    views: Sequence[str | dict[str, Any]]

    @property
    def results(self) -> Path:
        return self.root / "results"

    def photographs(self, split: str) -> list[Path]:
        """The files of a split in the order of its manifest."""
        return sorted((self.root / split).rglob("*.png"))


def deployed_run(
    root: Path,
    models: Mapping[str, Mapping[str, object]] | None = None,
    use: str = "mean",
    views: Sequence[str | dict[str, Any]] = VIEWS,
    label_space: LabelSpace = HOME,
    k: int = 2,
    calibration: str = "temperature",
) -> DeployedRun:
    """Draw photographs, split them, give every member random weights, predict, vote.

    Args:
        root: where the photographs and the results lie.
        models: by name, what their recipes have beside a tiny net of 32x24 pixels.
        use: the ensemble method that is used, or `best` of several.
        views: test-time views.
        label_space: the classes.
        k: number of folds.
        calibration: of the vote.
    """
    run = DeployedRun(root, views)
    results, recipes = (
        run.results,
        {name: Recipe.model_validate(MODEL | dict(own)) for name, own in (models or {"small": {}}).items()},
    )
    for split, persons in (("train", 12), ("test", 4)):
        _draw_split(root, split, persons, label_space)
    manifests = {split: results / f"data/manifest/split={split}/manifest.parquet" for split in ("train", "test")}
    split = SplitFiles(
        results / "data/classes.json", results / "folds/folds.parquet", results / "folds/certificate.json"
    )
    split.folds.parent.mkdir(parents=True)
    make_folds(manifests["train"], Folds(k=k), 7, split.folds, split.certificate, split.classes)
    for framing in {recipe.packed for recipe in recipes.values()}:
        for part, manifest in manifests.items():
            path = results / f"data/pixels/{framing.folder}/{part}.arrow"
            path.parent.mkdir(parents=True, exist_ok=True)
            pack_images(manifest, root, RULES, framing.size, framing.roi, path, workers=1, fit=framing.fit)
    parts: dict[str, list[Path]] = {"oof": [], "test": []}
    for name, recipe in recipes.items():
        for fold in range(k):
            for part, path in _member(run, name, recipe, fold, split).items():
                parts[part].append(path)
    _vote(run, parts, dict.fromkeys(recipes, k), split, use, calibration)
    return run


def _draw_split(root: Path, split: str, persons: int, label_space: LabelSpace) -> None:
    """Three photographs of each person, of a class each, with the manifest."""
    rows = []
    for person in range(persons):
        label = person % len(label_space.classes)
        for shot in range(3):
            image_id = f"{split}/p{person:02d}-{shot}.png"
            path = put(root / image_id, encoded(picture(48, 40, derive(3, split, person, shot) % 2**32), "PNG"))
            known = {name: names[label_space.level_codes(name)[label]] for name, names in label_space.factors.items()}
            row = manifest_row(image_id, f"{split}{person:02d}", 0, sha256_file(path), width=40, height=48, **known)
            phash = f"{derive(4, split, person, shot) % 2**63:016x}"
            rows.append(row | {"phash": phash, "label": label, "class_name": label_space.classes[label]})
    path = root / f"results/data/manifest/split={split}/manifest.parquet"
    path.parent.mkdir(parents=True)
    write_manifest(pd.DataFrame(rows), path, label_space)


def _member(run: DeployedRun, name: str, recipe: Recipe, fold: int, split: SplitFiles) -> dict[str, Path]:
    """Write a member with drawn weights, and its predictions: their files by part."""
    results = run.results
    space, digest = read_label_space(split.classes), read_folds(split.folds, split.certificate)[1]
    model = build_model(recipe, known_classes(recipe, space)[0], seed=derive(7, name, fold))
    images = {part: results / f"data/pixels/{recipe.packed.folder}/{part}.arrow" for part in ("train", "test")}
    packed = PackedImages(images["train"])
    _spread(model, packed, derive(8, name, fold))
    weights = results / f"train/model={name}/fold={fold}/model.safetensors"
    weights.parent.mkdir(parents=True)
    save_file(model.state_dict(), weights)
    about = {"model": name, "fold": fold, "seed": 7, "split_sha256": digest, "classes": list(space.classes)}
    about |= {"data_sha256": packed.record["data_sha256"], "sha256": sha256_file(weights)}
    write_json(
        weights.with_name("model.json"), about | {"recipe": recipe.model_dump(mode="json"), "pretrained_sha256": None}
    )
    written, parts = {}, []
    for part, pixels in (("oof", images["train"]), ("test", images["test"])):
        written[part] = results / f"{part}/model={name}/fold={fold}/predictions.parquet"
        written[part].parent.mkdir(parents=True)
        timing = results / f"timings/{part}/model={name}/fold={fold}.json"
        timing.parent.mkdir(parents=True, exist_ok=True)
        parts.append(PartFiles(part, pixels, written[part], timing))
    sidecar, resources = weights.with_name("model.json"), JobResources(0, 1, Runtime())
    predict_member(weights, sidecar, split, parts, list(run.views), resources)
    return written


def _spread(model: torch.nn.Module, packed: PackedImages, seed: int) -> None:
    """Fit the normalisation to the images and draw the head anew, so that answers differ and are fairly certain."""
    images = torch.from_numpy(np.stack([packed[row] for row in range(len(packed))]))
    mean, std = normalisation(model, torch.device("cpu"))
    batch = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        model.train()(batch)
        features = model.eval().forward_head(model.forward_features(batch), pre_logits=True)
        generator = torch.Generator().manual_seed(seed % 2**63)
        for layer in model.get_classifier().modules():
            if isinstance(layer, torch.nn.Linear):
                drawn = torch.randn(layer.weight.shape, generator=generator) / features.std(dim=0).clamp(min=1e-3)
                layer.weight.copy_(drawn * 2 / features.shape[1] ** 0.5)
                layer.bias.copy_(-layer.weight @ features.mean(dim=0))


def _vote(
    run: DeployedRun,
    parts: Mapping[str, list[Path]],
    expected: dict[str, int],
    split: SplitFiles,
    use: str,
    calibration: str,
) -> None:
    folder = run.results / "ensemble"
    folder.mkdir()
    names = {"oof": "parquet", "test": "parquet", "metrics": "json", "weights": "json", "votes": "json"}
    names |= {"slices": "csv", "reliability": "csv"}
    files = {name: folder / f"{name}.{ending}" for name, ending in names.items()}
    kinds = sorted({"mean", *([use] if use != "best" else ["geometric", "greedy"])})
    make_ensemble(
        EnsembleInputs(**parts, folds=split.folds, certificate=split.certificate, classes=split.classes),
        EnsembleFiles(**files, issues=folder / "label_issues.parquet", leaderboard=run.results / "leaderboard.csv"),
        expected,
        Vote.model_validate({"use": use, "kinds": kinds, "calibration": calibration, "draws": 100}),
        Submission(),
        7,
    )
    write_json(
        folder / "prediction.json",
        {
            "images": RULES.model_dump(mode="json", exclude={"on_bad"}),
            "min_confidence": 0.5,
            "views": list(run.views),
            "budget": False,
        },
    )
    inputs = ReviewInputs(files["oof"], split.folds, split.classes, test=files["test"])
    written = ReviewFiles(folder / "review.csv", folder / "coverage.json", folder / "coverage.csv")
    write_review(inputs, written, 0.9, "image", 100, 7)
