"""Summarise the trials of a search."""

from pathlib import Path

from foldvote.config.runtime import Runtime
from foldvote.report.tuning_figures import save_figures
from foldvote.runtime.job_log import job, log
from foldvote.tuning.results import drop_states, write_results
from foldvote.tuning.study import open_journal
from foldvote.tuning.trials import summary

if __name__ == "__main__":
    made, runtime = snakemake.output, Runtime.model_validate(snakemake.config["runtime"])
    state = Path(runtime.state_dir or snakemake.config["results"]) / "tune"
    with job(snakemake.log[0]):
        workers = [Path(path) for path in snakemake.input.done]
        trials, record = write_results(open_journal(state / "journal.log"), workers, Path(made.trials), Path(made.best))
        drop_states(state / "resume", record["study"])
        save_figures(trials, record, Path(made.trials).parent)
        for line in summary(trials, record):
            log(line)
