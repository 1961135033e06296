"""Check the predictions from elsewhere against the split and the test images."""

from pathlib import Path

from foldvote.ensemble.guests import check_guests, guest_files
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    given, params = snakemake.input, snakemake.params
    with job(snakemake.log[0]):
        check_guests(
            guest_files(params.guests, given.guest_oof, given.guest_test, given.guest_reserve),
            Path(given.folds),
            Path(given.certificate),
            Path(given.classes),
            Path(given.test) if given.test else None,
            params.id_column,
            Path(snakemake.output.facts),
        )
