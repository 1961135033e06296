"""Start and end of a Snakemake run: configuration, first checks, lock of the results folder, closing summary."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from foldvote.commands.run_checks import (
    all_recipes,
    check_data,
    check_files,
    check_guests,
    check_own_metric,
    check_transforms,
    check_units,
)
from foldvote.commands.weights_check import check_digests
from foldvote.config.experiment import Config, check_config, load_config
from foldvote.errors import UserError
from foldvote.runtime.locks import busy, run_lock

QUESTIONS = ("doctor", "next", "leaderboard")  # commands of `foldvote` that were Snakemake targets in earlier releases
_held: list[IO[str]] = []  # the lock file of the run, kept open until this process ends


def use_library(scripts: str) -> None:
    """Make jobs import the library beside the rules, even if their environment has another one installed.

    Args:
        scripts: the folder that holds the rules' scripts and the library.
    """
    folder = str(Path(scripts).resolve())
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != folder]
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *others])


def let_threads_sleep() -> None:
    """Let threads of jobs that wait for each other sleep after a moment, and not burn a core that others could use.

    OpenMP reads this before torch is imported, so that it is given to all jobs. A value that the user has set stays.
    Results stay the same; docs/scale.md has measurements.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "1000"


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the configuration, spelt like those of snakemake."""
    parser.add_argument("--configfile", nargs="+", default=[], help="the configuration; default: that of the demo")
    parser.add_argument("--config", "-C", nargs="+", default=[], metavar="KEY=VALUE", help="values over the file's")


def is_configuration(word: str) -> bool:
    """Whether a word of a command names a configuration: a YAML file, and not the one that is a target."""
    return word.endswith((".yaml", ".yml")) and not word.endswith("tune/best.yaml")


def configuration_options(files: Sequence[str], values: Sequence[str]) -> list[str]:
    """The options that select a configuration: its file, or none for that of the demo, and values over it."""
    return [*(["--configfile", *files] if files else []), *(["--config", *values] if values else [])]


def given_options(arguments: Sequence[str]) -> list[str]:
    """Those options of a command that select the configuration."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_configuration(parser)
    known = parser.parse_known_args(list(arguments))[0]
    return configuration_options(known.configfile, known.config)


def old_spelling(arguments: Sequence[str]) -> list[str] | None:
    """Translate a command in the old form, such as `snakemake doctor`, into arguments of `foldvote`.

    Args:
        arguments: the arguments of the snakemake command.

    Returns:
        The arguments of `foldvote`; None if the command has none of the targets QUESTIONS.
    """
    command = next((word for word in arguments if word in QUESTIONS), None)
    if command is None:
        return None
    others = [text for text in arguments if text != command]
    if command == "next":
        return [command, *others]
    after = arguments[arguments.index(command) + 1 :]
    first_option = next((place for place, text in enumerate(after) if text.startswith("-")), len(after))
    words = [word for word in after[:first_option] if command == "leaderboard" or is_configuration(word)]
    return [command, *words, *given_options(others)]


def answer_old_spelling(arguments: Sequence[str]) -> None:
    """Run `snakemake doctor`, `next` or `leaderboard` as a `foldvote` command, print the new form, and exit.

    Args:
        arguments: the arguments of the snakemake command. Returns if they hold none of these targets.
    """
    asked = old_spelling(arguments)
    if asked is None:
        return
    print(f"`snakemake {asked[0]}` is now: {shlex.join(['foldvote', *asked])}", file=sys.stderr)
    # In a new process, because `next` calls Snakemake, which is still reading its Snakefile in this one.
    sys.exit(subprocess.run([sys.executable, "-m", "foldvote.commands", *asked], check=False).returncode)


def read_configuration(file: str | None, values: dict[str, Any]) -> Config:
    """Read and check the configuration; exits with one line for each fault of it or of the files that it names.

    Args:
        file: the configuration file; None if `values` is the whole configuration, as for a module.
        values: values that override those of the file.
    """
    try:
        config = load_config(file, values) if file is not None else check_config(values, "config")
        check_files(config, f"foldvote fetch {shlex.quote(file)}" if file is not None else "foldvote fetch CONFIG")
    except UserError as error:
        sys.exit(str(error))
    return config


def prepare_run(config: Config) -> None:
    """Prepare a run in the first process, before the DAG is built.

    Tries the transforms that recipes name and the user's own metric, reads the columns of guests and the groups where
    these have answers, and exits with one line for each fault. Prints a note if another run works in the results
    folder.

    Args:
        config: the configuration.
    """
    try:
        check_transforms(config)
        check_guests(config)
        check_own_metric(config)
        check_units(config)
    except UserError as error:
        sys.exit(str(error))
    if other := busy(config.results):
        print(
            f"{config.results}: another run works here ({other}): looking is fine, running is refused.", file=sys.stderr
        )


def check_before_jobs(config: Config) -> None:
    """Exit with one line for each fault of the data that is found without opening an image; print what is unusual.

    Args:
        config: the configuration.
    """
    try:
        notes = [*check_digests(all_recipes(config, "net", "pretrained").values()), *check_data(config)]
    except UserError as error:
        sys.exit(str(error))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def begin_run(
    results: str, gpus: list[str], cores: int | None, offered: int, a_member: int = 1, sharers: int = 1
) -> None:
    """Lock the results folder for this process, and print which hardware networks run on.

    If another run holds the lock, this process exits with one line.

    Args:
        results: the results folder.
        gpus: ids of the GPUs that were found.
        cores: CPU cores of the run; None if jobs run on other machines, about which nothing is printed.
        offered: number of GPUs that the run may use (--resources gpu=N).
        a_member: number of GPUs that should train one member together.
        sharers: number of jobs that may share a GPU.
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
    elif 0 < offered < sharers:
        print(
            f"runtime.members_per_gpu is {sharers} and --resources gpu={offered} offers {offered}: no more than "
            f"{offered} at a time; each GPU counts as {sharers}, so offer gpu={sharers * len(gpus)} for all.",
            file=sys.stderr,
        )


def _board(config: Config) -> str:
    """The leaderboard as a text table, what the vote of all members is worth, and what else is submitted.

    Modules are imported late, to keep every start of Snakemake fast.
    """
    from foldvote.ensemble.headline import budget_line, group_headline, headline, refit_line
    from foldvote.ensemble.leaderboard import summary
    from foldvote.io.csv_files import read_csv
    from foldvote.io.files import read_json

    results = config.results
    metrics = read_json(Path(results, "ensemble/metrics.json"))
    table = summary(read_csv(Path(results, "leaderboard.csv"), required=["kind"]), metrics)
    lines = headline(metrics)
    if config.submission.unit == "group":
        lines.append(group_headline(read_json(Path(results, "ensemble/group_scores.json"))))
    budget = Path(results, "ensemble/budget.json")
    if config.has_test and config.vote.budget is not None and budget.is_file():
        lines.append(budget_line(read_json(budget)))
    forecast = Path(results, "refit/forecast.json")
    if config.curve_folds and forecast.is_file():
        lines.append(refit_line(read_json(forecast)))
    return "\n".join([table, "", *lines])


def profile_options(arguments: Sequence[str], cores: int) -> str:
    """The options that define where jobs run, for the commands that the summary suggests.

    Args:
        arguments: the arguments of the snakemake command.
        cores: CPU cores of the run, used if no workflow profile is named.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--workflow-profile")
    profile = parser.parse_known_args(arguments)[0].workflow_profile
    return f"--workflow-profile {profile}" if profile else f"--cores {cores}"


def end_of_run_summary(config: Config, manner: str) -> str:
    """Summary of a finished run for the console; empty if there is no leaderboard yet.

    Args:
        config: the configuration of the run.
        manner: options that define where jobs run, for the suggested commands.
    """
    results, model = config.results, next(iter(config.models))
    if not Path(results, "leaderboard.csv").is_file():
        return ""
    submission = [f"  submission   {results}/submission.csv"] if config.has_test else []
    return "\n".join(
        [
            "",
            _board(config),
            "",
            "Done.",
            f"  leaderboard  {results}/leaderboard.csv",
            *submission,
            f"  review       {results}/ensemble/review.csv (what a person should look at first)",
            f"  OOF          {results}/oof/ (logits of every view), {results}/ensemble/oof.parquet (the vote)",
            f"  proof        {results}/folds/certificate.json (no person on both sides of a split)",
            "Next:",
            f"  look         snakemake {manner} -- report    makes {results}/report.html",
            f"  one fold     snakemake {manner} -R {results}/train/model={model}/fold=0/model.safetensors",
            "  your data    copy config/maskbase.yaml; config/README.md explains every key",
        ]
    )
