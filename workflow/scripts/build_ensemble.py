"""Compare the ensemble methods, choose one, and score it."""

import json
from pathlib import Path

from foldvote.config.data import numeric_factor_of
from foldvote.config.ensemble import Submission, Vote
from foldvote.ensemble.build_ensemble import EnsembleFiles, make_ensemble
from foldvote.ensemble.guests import guest_files
from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.evaluation.metric_registry import find_metrics
from foldvote.io.files import write_json
from foldvote.io.paths import named_files
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    given, params = snakemake.input, snakemake.params
    settings = Vote.model_validate_json(params.vote)
    guests = guest_files(params.guests, given.guest_oof, given.guest_test, given.guest_reserve)
    with job(snakemake.log[0]):
        make_ensemble(
            inputs=named_files(EnsembleInputs, given, numeric=numeric_factor_of(params.numeric), guests=guests),
            files=named_files(EnsembleFiles, snakemake.output),
            expected=params.members,
            settings=settings,
            submission=Submission.model_validate_json(params.submission),
            seed=params.seed,
            metrics=find_metrics([params.metric, settings.score], snakemake.input.metric or None),
            plan=json.loads(params.get("plan", "null")),
        )
        write_json(Path(snakemake.output.prediction), json.loads(params.prediction))
