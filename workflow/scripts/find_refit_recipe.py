"""Write the recipe of the networks that learn from all groups, with the epochs that the folds found."""

from pathlib import Path

from foldvote.config.recipe import Recipe
from foldvote.runtime.job_log import job
from foldvote.training.refit_recipe import write_refit_recipe

if __name__ == "__main__":
    with job(snakemake.log[0]):
        write_refit_recipe(
            Recipe.model_validate_json(snakemake.params.recipe),
            [Path(path) for path in snakemake.input.sidecars],
            Path(snakemake.output.recipe),
        )
