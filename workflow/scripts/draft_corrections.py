"""Draft label corrections from the label issues of a finished run."""

from pathlib import Path

from foldvote.evaluation.label_issues import write_draft
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    params = snakemake.params
    with job(snakemake.log[0]):
        write_draft(
            Path(snakemake.input.issues), Path(snakemake.output.draft), params.top, home=params.home, label=params.label
        )
