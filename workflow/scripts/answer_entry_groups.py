"""Answer the test groups by one row of the leaderboard."""

from pathlib import Path

from foldvote.ensemble.group_answers import write_entry_groups
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    given = snakemake.input
    with job(snakemake.log[0]):
        write_entry_groups(
            Path(given.votes),
            Path(given.manifest),
            snakemake.params.pattern,
            Path(given.scores),
            Path(given.classes),
            Path(snakemake.output.groups),
        )
