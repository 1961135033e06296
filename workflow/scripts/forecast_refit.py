"""Forecast the score of the networks that learnt from all groups."""

from pathlib import Path

from foldvote.ensemble.refit_forecast import ForecastInputs, write_forecast
from foldvote.evaluation.metric_registry import find_metrics
from foldvote.io.paths import named_files
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    made, params = snakemake.output, snakemake.params
    with job(snakemake.log[0]):
        write_forecast(
            named_files(ForecastInputs, snakemake.input),
            Path(made.forecast),
            Path(made.curve),
            params.folds,
            params.seeds,
            params.chooses_epochs,
            params.draws,
            params.seed,
            find_metrics([params.metric], snakemake.input.metric or None),
        )
