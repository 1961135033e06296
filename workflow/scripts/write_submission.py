"""Write the submission and check it."""

from foldvote.config.ensemble import Submission
from foldvote.runtime.job_log import job
from foldvote.submission.writer import write_submission

if __name__ == "__main__":
    settings = Submission.model_validate_json(snakemake.params.settings)
    with job(snakemake.log[0]):
        write_submission(
            snakemake.input.votes,
            snakemake.input.classes,
            snakemake.input.sample or None,
            snakemake.output.submission,
            unit=settings.unit,
            **settings.columns,
        )
