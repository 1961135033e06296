"""A finished run, as everything that uses its ensemble needs it: members, views, the vote and its calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from torch import nn

from foldvote.config.data import Images
from foldvote.config.image_size import Framing
from foldvote.config.metadata import MetadataKind
from foldvote.config.recipe import Recipe
from foldvote.config.tta import view_name
from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.data.metadata import Encoding
from foldvote.ensemble.candidates import PRODUCT_SIGN, candidates_of
from foldvote.ensemble.methods import apply_method, choose_classes
from foldvote.ensemble.model_predictions import ModelPredictions
from foldvote.ensemble.scaling import Scaling, apply_scaling
from foldvote.errors import UserError, raise_all
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.predict_member import encoding_of, load_member
from foldvote.io.files import read_json
from foldvote.io.parquet import read_record
from foldvote.io.paths import MemberKey
from foldvote.io.run_files import run_fault
from foldvote.splits.folds import SplitFiles

Floats = npt.NDArray[np.floating]
Codes = npt.NDArray[np.integer]
MemberLogits = Mapping[MemberKey, Mapping[str, Floats]]


@dataclass(frozen=True)
class FinishedRun:
    """The ensemble that a run submitted, without models and views that its vote gives no weight.

    Attributes:
        results: the run's folder.
        label_space: the classes.
        recipes: the recipe of each model, in the order of their names.
        folds: the folds of each model's members.
        weights_sha256: of each member's weights.
        views: the test-time views, as in `predict.views`; the names that the vote uses stand in `params`.
        params: what the ensemble method has fitted, as in ensemble/weights.json.
        scaling: the calibration of the vote.
        images: what counts as a readable image.
        min_confidence: of a face, below which the centre is cropped.
        least: the least probability that a class needs to be in an image's set; None where the run has no sets.
        encodings: of each member that sees metadata how that becomes numbers.
    """

    results: Path
    label_space: LabelSpace
    recipes: Mapping[str, Recipe]
    folds: Mapping[str, Sequence[int]]
    weights_sha256: Mapping[MemberKey, str]
    views: Sequence[str | dict[str, Any]]
    params: Mapping[str, Any]
    scaling: Scaling
    images: Images
    min_confidence: float
    least: float | None
    encodings: Mapping[MemberKey, Encoding]

    @property
    def metadata(self) -> dict[str, MetadataKind]:
        """Names and kinds of the metadata that its networks or its vote see beside an image, sorted; mostly none."""
        of_vote = [
            fitted["metadata"] for fitted in self.params.values() if isinstance(fitted, dict) and "metadata" in fitted
        ]
        encodings = [*self.encodings.values(), *map(Encoding.of_json, of_vote)]
        return dict(sorted(pair for encoding in encodings for pair in encoding.kinds.items()))

    @property
    def members(self) -> list[MemberKey]:
        """Every member, (model, fold), sorted."""
        return [(model, fold) for model in self.recipes for fold in self.folds[model]]

    @property
    def inputs(self) -> dict[Framing, list[str]]:
        """The models by the images that they see."""
        found: dict[Framing, list[str]] = {}
        for model, recipe in self.recipes.items():
            found.setdefault(recipe.packed, []).append(model)
        return dict(sorted(found.items()))

    def member_folder(self, member: MemberKey) -> Path:
        """The folder of a member's weights."""
        return self.results / f"train/model={member[0]}/fold={member[1]}"

    def load(self, member: MemberKey) -> nn.Module:
        """Load a member's network, on the CPU.

        Raises:
            UserError: if its files are not those that were trained.
        """
        folder = self.member_folder(member)
        return load_member(folder / "model.safetensors", folder / "model.json", split_files(self.results))[2]

    def vote(self, logits: MemberLogits, metadata: pd.DataFrame | None = None) -> tuple[npt.NDArray[np.float64], Codes]:
        """The vote over members' logits, as the run makes it of test images.

        Args:
            logits: of every member, by view name, float32 (images, classes) of the task's classes.
            metadata: one row per image, with the columns of `metadata` at least; None where there are none.

        Returns:
            Calibrated probabilities, float64 (images, classes), and the predicted codes, int64 (images,).
        """
        names = sorted(view_name(view) for view in self.views)
        pairs = sorted(((model, view) for model in self.recipes for view in names), key="/".join)
        means = np.stack([self._mean_over_folds(logits, model, view) for model, view in pairs])
        learnt = {model: recipe.factors for model, recipe in self.recipes.items()}
        ids = pa.array([""] * means.shape[1], pa.string())
        candidates = candidates_of(
            ModelPredictions(ids, tuple(pairs), means, learnt, metadata=metadata), self.label_space
        )
        probabilities = apply_method(candidates, self.params, self.label_space)
        return apply_scaling(probabilities, self.scaling), choose_classes(probabilities, self.params)

    def _mean_over_folds(self, logits: MemberLogits, model: str, view: str) -> npt.NDArray[np.float32]:
        """As the ensemble averages test predictions: in float32, fold by fold."""
        folds = self.folds[model]
        total = np.zeros_like(logits[model, folds[0]][view], dtype=np.float32)
        for fold in folds:
            total += softmax(logits[model, fold][view]).astype(np.float32)
        mean: npt.NDArray[np.float32] = total / np.float32(len(folds))
        return mean


def split_files(results: Path) -> SplitFiles:
    """The classes and the split of a run."""
    return SplitFiles(
        results / "data/classes.json", results / "folds/folds.parquet", results / "folds/certificate.json"
    )


def read_finished_run(results: Path, *, budget: bool = True) -> FinishedRun:
    """Read what a finished run submitted: its vote, or the one that fits `vote.budget`.

    Args:
        results: the run's folder.
        budget: whether a vote that fits `vote.budget` goes before the whole vote.

    Raises:
        UserError: if the run is not finished, its members were trained anew since, or its vote has guests, whose
            predictions of other images nobody has.
    """
    raise_all(filter(None, [run_fault(results)]))
    record = read_record(results / "ensemble/oof.parquet")
    seen, fitted = read_json(results / "ensemble/prediction.json"), read_json(results / "ensemble/weights.json")
    if record.get("guests"):
        raise UserError(
            f"{results}: its vote has predictions from elsewhere ({', '.join(sorted(record['guests']))}), which nobody "
            "has of other images; drop `guests` and run your command again"
        )
    members = {
        (model, int(fold)): sha256 for model, folds in record["members"].items() for fold, sha256 in folds.items()
    }
    scaling: Scaling = fitted.pop("calibration")
    views, params = seen["views"], fitted
    fitting = results / "ensemble/budget.json"
    if budget and seen["budget"] and fitting.is_file():
        members, views, params, scaling = _of_budget(read_json(fitting), members, views)
    params, members, views = _with_weight(params, members, views)
    sidecars = {member: _sidecar(results, *member, sha256) for member, sha256 in sorted(members.items())}
    raise_all(fault for fault in sidecars.values() if isinstance(fault, str))
    recipes = {model: Recipe.model_validate(about["recipe"]) for (model, _), about in sidecars.items()}  # type: ignore[index]
    coverage = results / "ensemble/coverage.json"
    return FinishedRun(
        results=results,
        label_space=read_label_space(results / "data/classes.json"),
        recipes=recipes,
        folds={model: [fold for name, fold in sidecars if name == model] for model in recipes},
        weights_sha256=members,
        views=views,
        params=params,
        scaling=scaling,
        images=Images.model_validate(seen["images"]),
        min_confidence=seen["min_confidence"],
        least=read_json(coverage)["least_probability"] if coverage.is_file() else None,
        encodings={member: found for member, about in sidecars.items() if (found := encoding_of(about))},  # type: ignore[arg-type]
    )


def _of_budget(
    budget: Mapping[str, Any], members: Mapping[MemberKey, str], views: Sequence[str | dict[str, Any]]
) -> tuple[dict[MemberKey, str], list[str | dict[str, Any]], dict[str, Any], Scaling]:
    """Members, views, fitted parameters and calibration of the vote that fits the budget: an equal mean."""
    models = {part for name in budget["models"] for part in name.split(PRODUCT_SIGN)}
    kept = {(model, fold): sha for (model, fold), sha in members.items() if model in models and fold in budget["folds"]}
    candidates = sorted(f"{model}/{view}" for model in budget["models"] for view in budget["views"])
    params = {
        "kind": "mean",
        "candidates": candidates,
        "weights": dict.fromkeys(candidates, 1 / len(candidates)),
    }
    return (
        kept,
        [view for view in views if view_name(view) in budget["views"]],
        params,
        budget.get("calibration", {"method": "none"}),
    )


def _with_weight(
    params: Mapping[str, Any], members: Mapping[MemberKey, str], views: Sequence[str | dict[str, Any]]
) -> tuple[dict[str, Any], dict[MemberKey, str], list[str | dict[str, Any]]]:
    """Fitted parameters, members and views without those that the vote gives no weight, which change no probability."""
    if "weights" not in params:
        return dict(params), dict(members), list(views)
    weights = {name: weight for name, weight in params["weights"].items() if weight > 0}
    used = [name.rpartition("/") for name in sorted(weights)]
    models = {part for name, _, _ in used for part in name.split(PRODUCT_SIGN)}
    seen = {view for _, _, view in used}
    return (
        dict(params) | {"candidates": sorted(weights), "weights": weights},
        {(model, fold): sha256 for (model, fold), sha256 in members.items() if model in models},
        [view for view in views if view_name(view) in seen],
    )


def _sidecar(results: Path, model: str, fold: int, sha256: str) -> dict[str, Any] | str:
    """A member's sidecar, or what is wrong with it."""
    path = results / f"train/model={model}/fold={fold}/model.json"
    if not path.is_file():
        return f"{path}: is missing, and the vote was made with this member; run your command again"
    about: dict[str, Any] = read_json(path)
    if about["sha256"] != sha256:
        return f"{path}: was trained anew since the vote was made; run your command again"
    return about
