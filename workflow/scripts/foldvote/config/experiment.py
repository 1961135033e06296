"""The configuration of an experiment: one YAML file, of which everything is checked before anything runs."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from foldvote.config.augmentation_names import transform_faults
from foldvote.config.base import FilePath, Name, model_name_faults
from foldvote.config.batch_parts import division_faults, parts_of
from foldvote.config.bundle import NOT_EXPORTED, Bundle
from foldvote.config.data import Layout
from foldvote.config.ensemble import OF_METADATA, Submission, Vote, split_end
from foldvote.config.external import AllData
from foldvote.config.folds import Faces, Folds
from foldvote.config.guests import Guest
from foldvote.config.losses import OfFactors
from foldvote.config.metadata import metadata_misfits
from foldvote.config.metric_names import MetricName, is_own, parts_of_metric
from foldvote.config.model_relations import first_round_faults, leak_check_faults, metadata_refusals, product_faults
from foldvote.config.probe import LeakCheck
from foldvote.config.recipe import Recipe
from foldvote.config.recipe_resolution import with_bases, with_included
from foldvote.config.refit import Refit, refit_faults
from foldvote.config.runtime import Runtime
from foldvote.config.search_space import assignments, below, corners, label, with_values
from foldvote.config.tta import Predict, view_faults, view_name
from foldvote.config.tuning import Tune
from foldvote.config.validation_errors import readable_errors
from foldvote.config.yaml_file import load_yaml
from foldvote.errors import did_you_mean, raise_all


class Config(AllData):
    """The whole configuration of one experiment."""

    seed: int = Field(default=42, ge=0, lt=2**53)
    """Every random draw is a function of this number and of the purpose of the draw."""
    answers: FilePath | None = None
    """CSV with the true classes of the test images, if you have them: used for scores only, never for training."""
    metric: MetricName = "macro_f1"
    """The main metric: the first score of the leaderboard, and what chooses votes, epochs and trials unless these name
    another one. A name such as roc_auc, or a file NAME.py with a function of your own."""
    folds: Folds = Folds()
    faces: Faces = Faces()
    include: list[FilePath] = Field(default=[])
    """Files whose `recipes` are added to those below, such as results/tune/best.yaml."""
    recipes: dict[Name, dict[str, Any]] = Field(default={})
    """Recipes that models can inherit from (`base: NAME`); they are not trained themselves."""
    models: dict[Name, Recipe] = Field(min_length=1)
    """The models of the ensemble, under names of your choice. `base: NAME` inherits every key of another one."""
    guests: dict[Name, Guest] = Field(default={})
    """Predictions from elsewhere that join the vote like models, under names of your choice."""
    predict: Predict = Predict()
    new: FilePath | None = None
    """New images for the target `predict`: a folder, or a table (CSV or parquet) with the columns of the layout's table
    of test images."""
    vote: Vote = Field(default=Vote(), validate_default=True)
    submission: Submission = Submission()
    runtime: Runtime = Runtime()
    bundle: Bundle = Bundle()
    leak_check: LeakCheck | None = LeakCheck()
    """What the target `leak_check` compares; null: nothing, and the data check is without it."""
    tune: Tune | None = None
    """A hyperparameter search of one model's recipe, for the target `tune`."""
    refit: Refit | None = None
    """Networks that learn from all groups, for the target `refit`."""

    @field_validator("folds")
    @classmethod
    def _known_strata(cls, folds: Folds, info: ValidationInfo) -> Folds:
        data: Layout | None = info.data.get("data")
        known = frozenset(data.factor_names if data is not None else ())
        unknown = [name for name in folds.stratify if name not in known] if isinstance(folds.stratify, list) else []
        if data is not None and unknown:
            raise ValueError("\n".join(f"stratify: no factor {name!r}{did_you_mean(name, known)}" for name in unknown))
        if (
            data is not None
            and isinstance(folds.stratify, list)
            and (fault := data.joined_levels_fault(folds.stratify))
        ):
            raise ValueError(f"stratify: {fault}")
        return folds

    @field_validator("submission")
    @classmethod
    def _known_units(cls, submission: Submission, info: ValidationInfo) -> Submission:
        data: Layout | None = info.data.get("data")
        if data is not None and submission.unit == "group" and not data.has_test_groups:
            raise ValueError(f"unit: data.layout: {data.layout} names no groups of test images; use unit: image")
        return submission

    @field_validator("vote", "tune")
    @classmethod
    def _scored_by_metric(cls, section: Vote | Tune | None, info: ValidationInfo) -> Vote | Tune | None:
        if section is None or "score" in section.model_fields_set:
            return section
        return section.model_copy(update={"score": info.data.get("metric", section.score)})

    @field_validator("models")
    @classmethod
    def _chosen_by_metric(cls, models: dict[str, Recipe], info: ValidationInfo) -> dict[str, Recipe]:
        # A recipe that chooses no epoch keeps its own score, so that another metric retrains nothing.
        metric = info.data.get("metric", "macro_f1")
        return {
            name: recipe.model_copy(update={"best_by": metric})
            if recipe.chooses_epochs and "best_by" not in recipe.model_fields_set
            else recipe
            for name, recipe in models.items()
        }

    @model_validator(mode="after")
    def _models_fit(self) -> "Config":
        faults = [f"models.{fault}" for fault in model_name_faults(self.models)]
        faults += [f"models.{name}.{fault}" for name, recipe in self.models.items() for fault in self._misfits(recipe)]
        faults += self._metric_faults()
        faults += [*first_round_faults(self.models, self.has_test), *product_faults(self.models, self.factor_names)]
        if self.refit is not None:
            faults += refit_faults(self.refit, self.models, self.factor_names, self.folds.k)
        faults += [*self._tune_faults(), *self._guest_faults(), *leak_check_faults(self.leak_check, self.models)]
        sizes = {name: recipe.size for name, recipe in self.models.items()}
        faults += [f"predict.views: {fault}" for fault in view_faults(self.predict.views, sizes)]
        faults += self.bundle.faults(self.folds.count, [view_name(view) for view in self.predict.views])
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _misfits(self, recipe: Recipe) -> Iterator[str]:
        """What in a recipe does not fit the data and the runtime settings."""
        yield from self._factor_misfits(recipe)
        heads = recipe.heads if isinstance(recipe.heads, dict) else {}
        unknown = [name for name in heads if name not in self.factor_names]
        yield from (f"heads: no factor {name!r}{did_you_mean(name, self.factor_names)}" for name in unknown)
        if recipe.heads != "joint" and not self.factor_names:
            yield "heads: the classes of this data are not made up of factors; use heads: joint"
        numeric = self.data.numeric_factor
        regressed = [name for name, kind in heads.items() if kind == "regression"]
        for name in (name for name in regressed if numeric is None or name != numeric.name):
            yield f"heads.{name}: regression needs a number behind the bands, which only the home task's age has"
        yield from (f"augment: {fault}" for fault in transform_faults(recipe.augment))
        for processes in sorted({self.runtime.gpus_per_member, self.runtime.cpu_processes}):
            parts = parts_of(recipe.accumulate, processes)
            faults = division_faults(recipe.batch_size, parts, processes, recipe.group_shots)
            yield from (f"batch_size: {fault}" for fault in faults)
        if recipe.labels.active and numeric is None:
            yield "labels: age borders are the home task's; drop it"
        yield from metadata_misfits(recipe.metadata, self.data.metadata_columns)

    def _factor_misfits(self, recipe: Recipe) -> Iterator[str]:
        """What in a recipe does not fit the factors that it learns."""
        learnt = recipe.factors or sorted(self.factor_names)
        unknown = [name for name in learnt if name not in self.factor_names]
        yield from (f"factors: no factor {name!r}{did_you_mean(name, self.factor_names)}" for name in unknown)
        if not unknown and (fault := self.data.joined_levels_fault(learnt)):
            yield f"factors: {fault}"
        heads = recipe.heads if isinstance(recipe.heads, dict) else {}
        others = [name for name in heads if name in self.factor_names and name not in learnt]
        yield from (f"heads.{name}: this model does not learn {name}; drop it or add it to factors" for name in others)
        terms = [term for term in recipe.loss if isinstance(term, OfFactors)]
        absent = [(term.name, name) for term in terms for name in term.factors or () if name not in learnt]
        yield from (f"loss.{term}: no factor {name!r}{did_you_mean(name, learnt)}" for term, name in absent)
        numeric = self.data.numeric_factor
        if recipe.labels.active and numeric is not None and numeric.name not in learnt:
            yield f"labels: this model does not learn {numeric.name}; drop it or add {numeric.name} to factors"

    def _metric_faults(self) -> Iterator[str]:
        """Factors that a metric names and that do not exist, and files that are named elsewhere than in `metric`."""
        named = {"metric": self.metric, "vote.score": self.vote.score}
        named |= {f"models.{name}.best_by": recipe.best_by for name, recipe in self.models.items()}
        named |= {"tune.score": self.tune.score} if self.tune else {}
        for place, name in named.items():
            base, parameter = parts_of_metric(name)
            if base == "quadratic_kappa" and parameter and parameter not in self.factor_names:
                yield f"{place}: no factor {parameter!r}{did_you_mean(parameter, self.factor_names)}"
            if is_own(name) and name != self.metric:
                yield f"{place}: a file of your own is named in `metric`; name it there and drop it here"

    def _tune_faults(self) -> Iterator[str]:
        """A model or folds that a search names and that do not exist."""
        if self.tune is None:
            return
        if self.tune.model is not None and self.tune.model not in self.models:
            yield f"tune.model: no model {self.tune.model!r}{did_you_mean(self.tune.model, self.models)}"
        elif any(recipe.kind == "probe" for recipe in self.searched_recipes("kind").values()):
            yield "tune: a probe (kind: probe) has nothing to search; name a network in tune.model"
        if absent := [fold for fold in self.searched_folds if not 0 <= fold < self.folds.count]:
            yield f"tune.folds: there is no fold {', '.join(map(str, absent))}; the last one is {self.folds.count - 1}"

    def _guest_faults(self) -> Iterator[str]:
        """Guests with the name of a model, or without predictions that the vote needs; what a budget cannot price."""
        if split_end(self.vote.use)[0] in OF_METADATA and not self.data.metadata_columns:
            yield f"vote.use: {self.vote.use} learns from metadata; name columns in data.metadata, or choose another"
        if self.vote.budget is not None and self.guests:
            yield "vote.budget: what predictions from elsewhere (guests) cost is not known; drop one of the two"
        if self.vote.budget is not None and self.submission.unit == "group":
            yield "vote.budget: submits predictions of images, and submission.unit is group; drop one of the two"
        for name, guest in self.guests.items():
            place = f"guests.{name}"
            if name in self.models:
                yield f"{place}: there is a model {name} too; give the guest another name"
            if self.has_test and guest.test is None:
                yield f"{place}.test: missing, and the vote is of all models; give its predictions of the test images"
            if self.folds.reserve and guest.reserve is None:
                yield (
                    f"{place}.reserve: missing, and the vote is scored on the reserve (folds.reserve); give "
                    "predictions of its images, made as those of the test images by networks that have not seen them, "
                    "or drop the guest"
                )

    def bundle_refusals(self) -> list[str]:
        """What the target `bundle` cannot export, as far as the configuration says it: one line for each part."""
        wanted = self.bundle.views or [view_name(view) for view in self.predict.views]
        faults = [f"guests.{name}: predictions from elsewhere cannot be exported; drop it" for name in self.guests]
        if split_end(self.vote.use)[0] in NOT_EXPORTED:
            faults.append(f"vote.use: {self.vote.use} cannot be exported; choose another method")
        faults += [
            f"predict.views: {view['name']}: its steps are albumentations', which cannot be exported; name the other "
            "views in bundle.views"
            for view in self.predict.views
            if isinstance(view, dict) and view["name"] in wanted
        ]
        if self.faces.file and any(recipe.roi.startswith("face-") for recipe in self.models.values()):
            faults.append("faces.file: faces of your own table are not known in new images; set it to null and train")
        return [*(f"bundle: {fault}" for fault in faults), *metadata_refusals("bundle", self.models)]

    @property
    def probes(self) -> list[str]:
        """The models whose networks are not trained."""
        return [name for name, recipe in self.models.items() if recipe.kind == "probe"]

    @property
    def leak_model(self) -> Recipe | None:
        """The recipe whose net the leak check uses; None without one, or if no model has pretrained weights."""
        if self.leak_check is None:
            return None
        if self.leak_check.model is not None:
            return self.models[self.leak_check.model]
        return next((recipe for recipe in self.models.values() if recipe.weights), None)

    @property
    def searched_model(self) -> str:
        """The model whose recipe is searched."""
        return (self.tune.model if self.tune else None) or next(iter(self.models))

    @property
    def searched_folds(self) -> list[int]:
        """The folds on which each trial is scored."""
        chosen = self.tune.folds if self.tune else "all"
        return list(range(self.folds.count)) if chosen == "all" else chosen

    @property
    def refitted(self) -> list[str]:
        """The models that are trained again on all groups, sorted; none without a refit."""
        return self.refit.named(self.models) if self.refit else []

    @property
    def refit_seed(self) -> int:
        """The seed of the networks beside the folds: another one, so that they draw nothing that a member has drawn."""
        return self.seed + 1

    @property
    def curve_shares(self) -> list[str]:
        """The shares of a refit's learning curve, as their folders are called."""
        return [f"{share:g}" for share in self.refit.curve] if self.refit else []

    @property
    def whole_voters(self) -> int:
        """Number of models of whole classes in the vote; those of single factors make one together."""
        return len({name if not recipe.factors else "" for name, recipe in self.models.items()}) + len(self.guests)

    @property
    def curve_folds(self) -> list[int]:
        """The folds that the learning curve of a refit is measured on; none without a curve."""
        return self.refit.folds_of(self.folds.k) if self.refit else []

    def searched_recipes(self, *roots: str) -> dict[str, Recipe]:
        """The recipes that a search can reach by varying some keys, with all other keys unchanged.

        Args:
            roots: keys of a recipe, such as size and roi.

        Returns:
            Each recipe under a text that names the varied values, such as "size 64x48".
        """
        if self.tune is None:
            return {}
        base, space, recipes = self.models[self.searched_model], self.tune.space, {}
        for values in assignments(below(roots, space), space):
            called = ", ".join(f"{key} {label(value)}" for key, value in values.items())
            with suppress(ValidationError):  # values that exclude each other: a trial with them reports it
                recipes[called] = Recipe.model_validate(with_values(base, values))
        return recipes

    @property
    def sample_path(self) -> Path | None:
        """The file that gives the ids and the order of the submission: the user's, or the layout's own table."""
        own = self.data.submission_table
        return self.found(self.submission.sample) or (self.root / own if own else None)

    @property
    def prediction(self) -> dict[str, Any]:
        """How images are read and seen when the finished ensemble predicts them, for ensemble/prediction.json."""
        return {
            "images": self.images.model_dump(mode="json", exclude={"on_bad"}),
            "min_confidence": self.faces.min_confidence,
            "views": self.predict.views,
            "budget": self.vote.budget is not None,
        }

    @property
    def metric_path(self) -> Path | None:
        """The file of the user's own metric, or None."""
        return Path(self.metric) if is_own(self.metric) else None

    @property
    def answers_path(self) -> Path | None:
        """The file with the true classes of the test images, or of their groups (`submission.unit`), or None."""
        return self.found(self.answers) if self.has_test else None

    @property
    def image_answers_path(self) -> Path | None:
        """The same where the answers are those of images."""
        return self.answers_path if self.submission.unit == "image" else None


def load_config(path: str | Path, overrides: dict[str, Any] | None = None) -> Config:
    """Read and check a configuration file.

    Args:
        path: the YAML file.
        overrides: values that replace those of the file, such as Snakemake's `--config`; sections are merged key by
            key. The text `null` stands for null, which cannot be given on Snakemake's command line.

    Raises:
        UserError: with one line for each fault of the file.
    """
    return check_config(_merged(load_yaml(path), overrides or {}), str(path))


def check_config(values: dict[str, Any], source: str = "config") -> Config:
    """Check values that were already read.

    Args:
        values: the configuration as plain Python values.
        source: its name in errors.

    Raises:
        UserError: with one line for each fault; an unknown key is told with the nearest known one.
    """
    values, faults = _with_resolved_models(with_included(values, source))
    raise_all(f"{source}: {fault}" for fault in faults)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise_all(readable_errors(source, error, Config))
        raise
    raise_all(f"{source}: {fault}" for fault in dict.fromkeys(_corner_faults(config, values)))
    return config


def _corner_faults(config: Config, values: dict[str, Any]) -> Iterator[str]:
    """Values of a search space that the model or the rest of the configuration does not accept."""
    if config.tune is None:
        return
    name = config.searched_model
    own = re.compile(rf"^models\.{re.escape(name)}(\.|: )")
    for key, given in corners(config.tune.space):
        place = f"tune.space.{key}"
        try:
            model = with_values(config.models[name], given)
        except ValueError as error:
            yield f"{place}: {error}"
            continue
        try:
            Config.model_validate(values | {"tune": None, "models": values["models"] | {name: model}})
        except ValidationError as error:
            for line in readable_errors("", error, Config):
                yield f"{place} at {label(given[key])}: {own.sub('', line)}"


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The values of `base` with those of `over` in their place; mappings are merged key by key."""
    both = dict(base)
    for key, text in over.items():
        value = None if text == "null" else text
        both[key] = _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return both


def _with_resolved_models(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The configuration with `base` of every model resolved, and what is wrong with it."""
    models, recipes = values.get("models"), values.get("recipes") or {}
    if not isinstance(models, dict) or not isinstance(recipes, dict):
        return values, []
    resolved, faults = with_bases(models, recipes)
    return values | {"models": resolved}, faults
