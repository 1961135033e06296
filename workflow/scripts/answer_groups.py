"""Choose how the images of a group become one answer, and answer the test groups."""

from pathlib import Path

from foldvote.config.ensemble import Submission
from foldvote.ensemble.group_answers import GroupInputs, answer_groups
from foldvote.evaluation.metric_registry import find_metrics
from foldvote.io.paths import named_files
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    params, output = snakemake.params, snakemake.output
    with job(snakemake.log[0]):
        answer_groups(
            named_files(GroupInputs, snakemake.input),
            Path(output.scores),
            Path(output.groups) if output.groups else None,
            Submission.model_validate_json(params.submission),
            params.score,
            params.draws,
            params.pattern,
            params.seed,
            find_metrics([params.metric, params.score], snakemake.input.metric or None),
        )
