"""Measure how the loss of one model depends on the learning rate."""

import json
from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.data import numeric_factor_of
    from foldvote.config.recipe import Recipe
    from foldvote.config.runtime import Runtime
    from foldvote.report.lr_range import write_lr_range
    from foldvote.runtime.gpus import gpu_lease
    from foldvote.runtime.job_log import job, log
    from foldvote.runtime.resources import JobResources
    from foldvote.runtime.seeding import MemberSeeds
    from foldvote.training.training_set import inputs_of_job

if __name__ == "__main__":
    given, params, of = snakemake.input, snakemake.params, snakemake.wildcards
    recipe = Recipe.model_validate(json.loads(params.recipe))
    runtime = Runtime.model_validate(snakemake.config["runtime"])
    with job(snakemake.log[0]), gpu_lease(log, snakemake.resources.gpu, sharers=runtime.members_per_gpu) as gpus:
        gpu_count = len(gpus) or snakemake.resources.gpu
        write_lr_range(
            seeds=MemberSeeds(params.seed, of.model, int(of.fold)),
            recipe=recipe,
            inputs=inputs_of_job(
                dict(given.items()), recipe, numeric_factor_of(params.numeric), params.pretrained_sha256
            ),
            resources=JobResources(gpu_count, snakemake.threads, runtime),
            table=Path(snakemake.output.table),
            figure=Path(snakemake.output.figure),
        )
