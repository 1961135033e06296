"""What one member learns from and is scored on: images, targets and the classes it knows.

Everything that a recipe changes about them is here: a model of some factors, labels treated for training, test images
with pseudo-labels. What a member is scored on stays the true labels of its validation persons.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from foldvote.errors import Refusal
from foldvote.files import read_json
from foldvote.folds import fold_rows, read_folds
from foldvote.jobs import SplitFiles, matching_pixels
from foldvote.labels import Scheme, read_scheme
from foldvote.pixels import Pixels, Stacked
from foldvote.pseudo import PseudoInputs, PseudoLabels, pseudo_labels
from foldvote.recipes import Recipe
from foldvote.tables import read_table
from foldvote.targets import training_targets


@dataclass(frozen=True)
class Lessons:
    """What a member learns from, and what it is scored on.

    Attributes:
        scheme: the classes that it knows: all, or those of its factors.
        pixels: packed training images.
        source: where the images to learn from lie: `pixels`, or these and the packed test images.
        training: a row an image to learn from: image_id, label (code of `scheme`), stratum (empty for a test image)
            and `row`, its row of `source`.
        targets: what to learn of them: int64 codes (images,) or float32 shares (images, classes).
        validation: rows of tables.FOLDS with labels of `scheme`.
        origin: digests of what all of this was made from.
    """

    scheme: Scheme
    pixels: Pixels
    source: Pixels | Stacked
    training: pd.DataFrame
    targets: np.ndarray
    validation: pd.DataFrame
    origin: dict[str, Any]


def known_classes(recipe: Recipe, scheme: Scheme) -> tuple[Scheme, np.ndarray]:
    """The classes that a recipe's model knows, and the code there of each class of the task: int64 (classes,)."""
    return scheme.restricted(recipe.factors) if recipe.factors else (scheme, np.arange(len(scheme.classes)))


def make_lessons(
    recipe: Recipe,
    fold: int,
    pixels_path: Path,
    split: SplitFiles,
    manifest: Path | None = None,
    age_borders: tuple[int, int] | None = None,
    pseudo: PseudoInputs | None = None,
) -> Lessons:
    """Bring together what the member of a fold learns from.

    Args:
        recipe: of its model.
        fold: its fold.
        pixels_path: packed training images.
        split: classes and folds.
        manifest: of the training images; only asked for by a recipe that treats labels by age.
        age_borders: borders of the age bands in years, where there are any.
        pseudo: where test images to learn from are; only read for a recipe with `pseudo`, None learns from none.

    Raises:
        Refusal: if the inputs do not belong together.
    """
    whole = read_scheme(split.classes)
    scheme, code_of = known_classes(recipe, whole)
    folds, digest = read_folds(split.folds, split.certificate)
    training, validation = (
        rows.assign(label=code_of[rows["label"].to_numpy(np.int64)]) for rows in fold_rows(folds, fold)
    )
    pixels = matching_pixels(pixels_path, recipe, read_json(split.certificate)["data_sha256"])
    training = training[["image_id", "label", "stratum"]].assign(row=pixels.rows(training["image_id"].tolist()))
    targets = training_targets(
        scheme,
        training["label"].to_numpy(np.int64),
        _years(manifest, training) if recipe.labels.active else None,
        recipe.labels,
        age_borders,
    )
    origin = {"split_sha256": digest, "data_sha256": pixels.record["data_sha256"], "classes": list(whole.classes)}
    if recipe.pseudo is None or pseudo is None:
        return Lessons(scheme, pixels, pixels, training, targets, validation, origin)
    found = pseudo_labels(pseudo.predictions, fold, recipe.pseudo.confidence, whole.classes, digest)
    tests = matching_pixels(pseudo.pixels, recipe, found.data_sha256)
    shares = found.shares @ np.eye(len(scheme.classes), dtype=np.float32)[code_of]
    training = pd.concat([training, _as_rows(found, shares, tests, len(pixels))], ignore_index=True)
    targets = np.concatenate([_as_shares(targets, len(scheme.classes)), shares])
    origin["pseudo"] = {"images": len(shares), "test_sha256": found.data_sha256, "weights_sha256": found.sources}
    return Lessons(scheme, pixels, Stacked(pixels, tests), training, targets, validation, origin)


def _as_rows(found: PseudoLabels, shares: np.ndarray, tests: Pixels, before: int) -> pd.DataFrame:
    """Test images as rows to learn from; `before` images stand before them in the source."""
    rows = {"image_id": found.image_ids, "label": shares.argmax(axis=1), "stratum": ""}
    return pd.DataFrame(rows).assign(row=before + tests.rows(found.image_ids))


def _as_shares(targets: np.ndarray, classes: int) -> np.ndarray:
    """Codes or shares as float32 shares (images, classes)."""
    return np.eye(classes, dtype=np.float32)[targets] if targets.ndim == 1 else targets


def _years(manifest: Path | None, training: pd.DataFrame) -> np.ndarray:
    """Age in years of each training image, NaN where it is not known."""
    if manifest is None:
        raise Refusal("labels: are treated by age, and no manifest was given to take it from")
    ages = read_table(manifest).set_index("image_id")["age_years"]
    return ages.reindex(training["image_id"]).to_numpy(np.float64)
