"""List images that stand in train and in test."""

from pathlib import Path

from foldvote.console import job
from foldvote.duplicates import report_overlap

if __name__ == "__main__":
    with job(snakemake.log[0]):
        report_overlap(
            train_manifest=Path(snakemake.input.train),
            test_manifest=Path(snakemake.input.test),
            bits=snakemake.params.bits,
            path=Path(snakemake.output.overlap),
        )
