"""Compare one network of each student with the vote of its teachers."""

from pathlib import Path

from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.ensemble.students import write_students
from foldvote.io.paths import named_files
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    params = snakemake.params
    with job(snakemake.log[0]):
        write_students(
            inputs=named_files(EnsembleInputs, snakemake.input, test=[]),
            students=params.students,
            expected=params.members,
            draws=params.draws,
            seed=params.seed,
            path=Path(snakemake.output.table),
        )
