"""List images that occur in train and in test."""

from pathlib import Path

from foldvote.data.duplicates import report_overlap
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        report_overlap(
            train_manifest=Path(snakemake.input.train),
            test_manifest=Path(snakemake.input.test),
            bits=snakemake.params.bits,
            path=Path(snakemake.output.overlap),
        )
