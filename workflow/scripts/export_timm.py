"""Write each member as a folder that timm loads by itself, with a model card."""

from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.deployment.timm_folders import export_timm
    from foldvote.runtime.job_log import job
    from foldvote.splits.folds import SplitFiles

if __name__ == "__main__":
    given = snakemake.input
    with job(snakemake.log[0]):
        export_timm(
            weights=[Path(path) for path in given.weights],
            split=SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate)),
            metrics=Path(given.metrics),
            prediction=Path(given.prediction),
            folder=Path(snakemake.output.folders),
        )
