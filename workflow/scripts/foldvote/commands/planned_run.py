"""A run with `runtime.max_hours`: its configuration, and the plan that is made before it trains."""

import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from foldvote.config.experiment import Config
from foldvote.config.run_plan import apply_plan, in_words, plan_path, read_plan
from foldvote.errors import UserError

MODULE = "foldvote.commands.planned_run"


def planned_configuration(asked: Config) -> tuple[Config, dict[str, Any] | None]:
    """What a plan leaves of a configuration; exits with one line if the plan is damaged.

    Args:
        asked: the configuration, as the user wrote it.

    Returns:
        The configuration of the models that are trained, and the plan as plain values, by model; without a plan, the
        same configuration and None.
    """
    try:
        plan = read_plan(asked)
    except UserError as error:
        sys.exit(str(error))
    return apply_plan(asked, plan), None if plan is None else {name: asdict(one) for name, one in plan.items()}


def plan_before_training(asked: Config, rules: Collection[str], arguments: Sequence[str], works_here: bool) -> None:
    """Where a run with `runtime.max_hours` is about to train without a plan: make it, and begin the run anew with it.

    What a plan has cut is printed. Snakemake reads the models before its first job, and so the plan is made by a run of
    its own. This process then starts over: its number and its place in a script stay what they were.

    Args:
        asked: the configuration, as the user wrote it.
        rules: the rules that have jobs to do.
        arguments: those of the snakemake command.
        works_here: whether jobs run on this machine.
    """
    if asked.runtime.max_hours is None or "train" not in rules:
        return
    if not works_here:
        sys.exit(
            "runtime.max_hours: plans runs on one machine, and this one sends its jobs to others, where nobody knows "
            "how long they wait; set it to null, and limit models.*.max_minutes"
        )
    if (plan := read_plan(asked)) is not None:
        for line in in_words(asked, plan):
            print(f"{plan_path(asked)}: {line}", file=sys.stderr)
        return
    done = subprocess.run([sys.executable, "-m", MODULE, *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)
    if read_plan(asked) is None:
        sys.exit(f"{plan_path(asked)}: is not there although its job has ended; run the same command again")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *arguments])


def make_plan(arguments: Sequence[str]) -> int:
    """Run Snakemake for the target `plan`, with the options of another command.

    Args:
        arguments: those of the snakemake command, whose targets, and what it runs again, are left out.

    Returns:
        The exit code.
    """
    from snakemake.cli import args_to_api, parse_args

    parser, parsed = parse_args(list(arguments))
    # It is known that there is none: Snakemake may not know for what a plan that is there was made.
    parsed.targets, parsed.force, parsed.forceall, parsed.forcerun = {"plan"}, False, False, {"plan"}
    parsed.until, parsed.omit_from = set(), set()
    return 0 if args_to_api(parsed, parser) else 1


if __name__ == "__main__":
    sys.exit(make_plan(sys.argv[1:]))
