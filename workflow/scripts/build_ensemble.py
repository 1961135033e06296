"""Compare the ensemble methods, choose one, and score it."""

from foldvote.config.data import numeric_factor_of
from foldvote.config.ensemble import Submission, Vote
from foldvote.ensemble.build_ensemble import EnsembleFiles, make_ensemble
from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.evaluation.metric_registry import find_metrics
from foldvote.io.paths import named_files
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    params, settings = snakemake.params, Vote.model_validate_json(snakemake.params.vote)
    with job(snakemake.log[0]):
        make_ensemble(
            inputs=named_files(EnsembleInputs, snakemake.input, numeric=numeric_factor_of(params.numeric)),
            files=named_files(EnsembleFiles, snakemake.output),
            expected=params.members,
            settings=settings,
            submission=Submission.model_validate_json(params.submission),
            seed=params.seed,
            metrics=find_metrics([params.metric, settings.score], snakemake.input.metric or None),
        )
