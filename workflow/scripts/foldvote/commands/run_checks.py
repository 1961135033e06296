"""What is checked of a configuration, its files and its data before the first job."""

import sys
from pathlib import Path

from foldvote.commands.weights_check import weights_faults
from foldvote.config.data import FoldersLayout
from foldvote.config.experiment import Config
from foldvote.config.image_size import parse_size
from foldvote.config.recipe import Recipe
from foldvote.data.file_listing import folder_faults
from foldvote.errors import UserError, raise_all


def check_files(config: Config, fetch: str) -> None:
    """Check that the files named in a configuration exist, before any rule needs them.

    Args:
        config: the configuration.
        fetch: the command that downloads the weights of this configuration.

    Raises:
        UserError: naming every key whose file is missing.
    """
    named: dict[str, Path | None] = {"folds.file": Path(config.folds.file) if config.folds.file else None}
    named["metric"] = config.metric_path
    if config.data.drawn is None:
        named |= {"data_root": config.root, "corrections": config.corrections_path, "answers": config.answers_path}
        named |= {"submission.sample": config.sample_path}
        named |= {f"the {split} table of data": path for split in ("train", "test") for path in config.tables(split)}
    for name, block in config.blocks.items():
        tables = block.tables("train") if block.root.exists() else []
        named |= {f"external.{name}.data_root": block.root}
        named |= {f"the table of external.{name}": path for path in tables}
    for name, guest in config.guests.items():
        named |= {f"guests.{name}.{part}": Path(path) for part, path in guest.model_dump().items() if path}
    weights = []
    for place, recipe in all_recipes(config, "net", "pretrained", "roi").items():
        if recipe.roi.startswith("face-") and config.faces.file:
            named["faces.file"] = Path(config.faces.file)
        weights += [f"{place}.pretrained: {fault}" for fault in weights_faults(recipe, fetch)]
    missing = [
        f"{key}: {path} is not there; correct the path" for key, path in named.items() if path and not path.exists()
    ]
    missing += weights
    raise_all(missing[:1] if missing and missing[0].startswith("data_root") else missing)
    if isinstance(config.data, FoldersLayout):
        raise_all(folder_faults(config.root, config.data, Path(config.results)))
    for name, block in config.blocks.items():
        if isinstance(block.data, FoldersLayout):
            faults = folder_faults(block.root, block.data, Path(config.results))
            raise_all(f"external.{name}: {fault}" for fault in faults)


def refuse_bundle(config: Config) -> None:
    """Exit with one line for each part of a configuration that the target `bundle` cannot export, before any job.

    Args:
        config: the configuration.
    """
    if faults := config.bundle_refusals():
        sys.exit("\n".join(faults))


def check_transforms(config: Config) -> None:
    """Try the albumentations transforms that recipes name; only a trial shows whether their arguments are valid.

    This imports albumentations, which takes seconds, but only if a recipe names a transform.

    Args:
        config: the configuration.

    Raises:
        UserError: naming the faults of every recipe.
    """
    recipes = all_recipes(config, "augment", "size", "pack")
    named = {place: recipe for place, recipe in recipes.items() if any(step.arguments for step in recipe.augment)}
    if named:
        from foldvote.data.augmentation import check_steps

        raise_all(
            f"{place}.augment: {fault}"
            for place, recipe in named.items()
            for fault in check_steps(recipe.augment, *parse_size(recipe.size), recipe.packed.shape)
        )


def check_data(config: Config, *, split: bool = False) -> list[str]:
    """Read the user's tables, folders, sample and answers, and compare them, without opening an image.

    This imports pandas, so it is done only where a run begins and in `foldvote doctor`.

    Args:
        config: the configuration.
        split: whether to try the split into folds as well.

    Returns:
        One line for each thing that a user may not have meant.

    Raises:
        UserError: with all that would stop a run later, after hours of training perhaps.
    """
    from foldvote.submission.early_checks import early_checks

    faults, notes = early_checks(config, split=split)
    if faults:
        raise UserError(*faults)
    return notes


def check_guests(config: Config) -> None:
    """Check the columns of predictions from elsewhere; their rows are checked once there is a split.

    This imports pandas, which takes a second, but only if there are guests.

    Args:
        config: the configuration.

    Raises:
        UserError: naming the faults of every table.
    """
    if config.guests:
        from foldvote.data.layouts.registry import layout_of
        from foldvote.ensemble.guests import header_faults

        try:
            classes = layout_of(config.data).label_space(set()).classes
        except UserError:  # the classes are found in the data
            classes = None
        raise_all(
            f"guests.{name}: {fault}"
            for name, guest in config.guests.items()
            for path in guest.model_dump().values()
            if path
            for fault in header_faults(Path(path), config.submission.id_column, classes)
        )


def check_own_metric(config: Config) -> None:
    """Call the user's own metric once, if there is one.

    Args:
        config: the configuration.

    Raises:
        UserError: if it fails.
    """
    if config.metric_path is not None:
        from foldvote.evaluation.own_metric import try_own_metric

        try_own_metric(config.metric_path)


def all_recipes(config: Config, *searched: str) -> dict[str, Recipe]:
    """By place in the configuration the recipes of the models, and those a search can reach by the keys `searched`."""
    own = {f"models.{name}": recipe for name, recipe in config.models.items()}
    return own | {
        f"tune.space ({choice})": recipe for choice, recipe in config.searched_recipes(*searched).items() if choice
    }


def check_units(config: Config) -> None:
    """Check the groups that have answers; this reads the data's tables, but only with `submission.unit: group`.

    Args:
        config: the configuration.

    Raises:
        UserError: naming groups of several classes, test images without a group, and groups unknown to the sample.
    """
    if config.submission.unit == "group":
        from foldvote.submission.answer_units import check_groups

        check_groups(config)
