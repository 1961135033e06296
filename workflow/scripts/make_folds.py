"""Split the training images into folds and certify the split."""

from pathlib import Path

from foldvote.config.folds import Folds
from foldvote.runtime.job_log import job
from foldvote.splits.folds import make_folds

if __name__ == "__main__":
    with job(snakemake.log[0]):
        make_folds(
            manifest_path=Path(snakemake.input.manifest),
            settings=Folds.model_validate_json(snakemake.params.settings),
            seed=snakemake.params.seed,
            folds_path=Path(snakemake.output.folds),
            certificate_path=Path(snakemake.output.certificate),
            classes_path=Path(snakemake.output.classes),
        )
