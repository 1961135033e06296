"""Write which images a person should look at, and how often sets of classes contain the truth."""

from foldvote.ensemble.review import ReviewFiles, ReviewInputs, write_review
from foldvote.io.paths import named_files
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    params = snakemake.params
    with job(snakemake.log[0]):
        write_review(
            inputs=named_files(ReviewInputs, snakemake.input),
            files=named_files(ReviewFiles, snakemake.output),
            coverage=params.coverage,
            covers=params.covers,
            draws=params.draws,
            seed=params.seed,
        )
