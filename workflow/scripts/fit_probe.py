"""Fit one member that is a probe."""

from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.data import numeric_factor_of
    from foldvote.config.recipe import Recipe
    from foldvote.config.runtime import Runtime
    from foldvote.runtime.job_log import job
    from foldvote.runtime.resources import JobResources
    from foldvote.runtime.seeding import MemberSeeds
    from foldvote.training.probe import train_probe
    from foldvote.training.train_member import MemberFiles
    from foldvote.training.training_set import inputs_of_job

if __name__ == "__main__":
    given, made, params, of = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards
    recipe = Recipe.model_validate_json(params.recipe)
    with job(snakemake.log[0]):
        train_probe(
            seeds=MemberSeeds(params.seed, of.model, int(of.fold)),
            recipe=recipe,
            code=params.code,
            inputs=inputs_of_job(
                dict(given.items()), recipe, numeric_factor_of(params.numeric), params.pretrained_sha256
            ),
            features=Path(given.features),
            files=MemberFiles(
                Path(made.weights), Path(made.last), Path(made.sidecar), Path(made.history), Path(made.timing)
            ),
            resources=JobResources(0, snakemake.threads, Runtime.model_validate(snakemake.config["runtime"])),
        )
