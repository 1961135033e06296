"""Draw a training batch of one model as its net sees it."""

from pathlib import Path

from foldvote.batches import Draws
from foldvote.console import job
from foldvote.jobs import SplitFiles
from foldvote.preview import write_preview
from foldvote.recipes import Recipe

if __name__ == "__main__":
    given, params = snakemake.input, snakemake.params
    with job(snakemake.log[0]):
        write_preview(
            recipe=Recipe.model_validate_json(params.recipe),
            pixels_path=Path(given.pixels),
            split=SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate)),
            draws=Draws(params.seed, snakemake.wildcards.model, params.fold),
            path=Path(snakemake.output.preview),
        )
