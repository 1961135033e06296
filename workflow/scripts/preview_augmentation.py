"""Draw an augmented training batch of one model."""

from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.recipe import Recipe
    from foldvote.report.augmentation_preview import write_preview
    from foldvote.runtime.job_log import job
    from foldvote.runtime.seeding import MemberSeeds
    from foldvote.splits.folds import SplitFiles

if __name__ == "__main__":
    given, params = snakemake.input, snakemake.params
    with job(snakemake.log[0]):
        write_preview(
            recipe=Recipe.model_validate_json(params.recipe),
            packed_path=Path(given.pixels),
            split=SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate)),
            seeds=MemberSeeds(params.seed, snakemake.wildcards.model, params.fold),
            path=Path(snakemake.output.preview),
        )
