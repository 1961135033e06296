"""Write the test predictions of one row of the leaderboard."""

from pathlib import Path

from foldvote.ensemble.single_entry import write_entry
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    given = snakemake.input
    with job(snakemake.log[0]):
        write_entry(
            snakemake.wildcards.row,
            [Path(path) for path in given.test],
            snakemake.params.folds,
            Path(given.folds),
            Path(given.certificate),
            Path(given.classes),
            Path(given.votes) if given.votes else None,
            Path(snakemake.output.votes),
            dict(zip(snakemake.params.guests, map(Path, given.guest_test), strict=True)),
            snakemake.params.id_column,
            Path(given.metadata[0]) if given.get("metadata") else None,
        )
