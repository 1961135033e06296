"""Measure every model, and plan what fits into runtime.max_hours."""

import json
import time
from pathlib import Path

from foldvote.runtime.garbage import imports_stay

before = time.monotonic()
with imports_stay():
    from foldvote.config.data import numeric_factor_of
    from foldvote.config.recipe import Recipe
    from foldvote.config.runtime import Runtime
    from foldvote.runtime.gpus import gpu_lease
    from foldvote.runtime.job_log import job, log
    from foldvote.runtime.resources import JobResources
    from foldvote.splits.folds import SplitFiles
    from foldvote.training.plan_run import Limits, Wanted, write_plan
    from foldvote.training.training_set import MemberInputs

if __name__ == "__main__":
    import_seconds = time.monotonic() - before
    given, params = snakemake.input, snakemake.params
    runtime = Runtime.model_validate(snakemake.config["runtime"])
    split = SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate))
    recipes = {name: Recipe.model_validate(json.loads(recipe)) for name, recipe in params.recipes}
    test = [Path(path) for path in given.test] or [None] * len(recipes)
    wanted = {
        name: Wanted(
            recipe,
            MemberInputs(Path(train), split, numeric=numeric_factor_of(params.numeric)),
            tested,
            tuple(params.needs[name]),
            name in params.teachers,
        )
        for (name, recipe), train, tested in zip(recipes.items(), given.train, test, strict=True)
    }
    with job(snakemake.log[0]), gpu_lease(log, snakemake.resources.gpu, sharers=runtime.members_per_gpu) as gpus:
        write_plan(
            wanted,
            params.seed,
            params.folds,
            list(params.views),
            Limits(
                params.max_hours,
                time.time() - snakemake.config["run_started"],
                params.least_epochs,
                params.at_once,
                import_seconds,
            ),
            params.made_for,
            Path(snakemake.output.plan),
            JobResources(len(gpus) or snakemake.resources.gpu, snakemake.threads, runtime),
        )
