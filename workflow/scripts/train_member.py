"""Train one member."""

import json
from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.data import numeric_factor_of
    from foldvote.config.recipe import Recipe
    from foldvote.config.run_plan import PlannedModel
    from foldvote.config.runtime import Runtime
    from foldvote.io.files import read_json
    from foldvote.runtime.gpus import gpu_lease
    from foldvote.runtime.job_log import job, log
    from foldvote.runtime.resources import JobResources
    from foldvote.runtime.seeding import MemberSeeds
    from foldvote.training.train_member import MemberFiles, train_member
    from foldvote.training.training_set import inputs_of_job

if __name__ == "__main__":
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    runtime, of = Runtime.model_validate(snakemake.config["runtime"]), snakemake.wildcards
    # Not an output of the rule, because it must survive a failed job.
    state = Path(runtime.state_dir or snakemake.config["results"], params.get("below", ""))
    # That of a refit is made from the members of the folds.
    recipe = Recipe.model_validate(
        read_json(given.recipe)["recipe"] if given.get("recipe") else json.loads(params.recipe)
    )
    # A plan is for the members of the folds. Its epochs are in their recipe.
    planned = None if params.get("below") else (snakemake.config.get("plan") or {}).get(of.model)
    with job(snakemake.log[0]), gpu_lease(log, snakemake.resources.gpu, sharers=runtime.members_per_gpu) as gpus:
        train_member(
            seeds=MemberSeeds(params.seed, of.model, int(of.fold)),
            recipe=recipe,
            code=params.code,
            inputs=inputs_of_job(
                dict(given.items()), recipe, numeric_factor_of(params.numeric), params.pretrained_sha256
            ),
            resume_dir=state / f"resume/model={of.model}/fold={of.fold}",
            tracking_dir=state,
            files=MemberFiles(
                Path(made.weights), Path(made.last), Path(made.sidecar), Path(made.history), Path(made.timing)
            ),
            resources=JobResources(len(gpus) or snakemake.resources.gpu, snakemake.threads, runtime),
            planned=PlannedModel(**planned) if planned else None,
        )
