"""Average the networks that learnt from all groups on the test images, and join them with the vote of the folds."""

from foldvote.config.ensemble import Submission
from foldvote.ensemble.refit_vote import RefitVoteFiles, RefitVoteInputs, write_refit_vote
from foldvote.evaluation.metric_registry import find_metrics
from foldvote.io.paths import named_files
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    params = snakemake.params
    with job(snakemake.log[0]):
        write_refit_vote(
            named_files(RefitVoteInputs, snakemake.input),
            named_files(RefitVoteFiles, snakemake.output),
            params.voters,
            Submission.model_validate_json(params.submission),
            params.draws,
            params.seed,
            find_metrics([params.metric], snakemake.input.metric or None),
        )
