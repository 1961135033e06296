"""Write the finished ensemble as a bundle and check that it predicts as the run does."""

from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.bundle import Bundle
    from foldvote.config.ensemble import Submission
    from foldvote.deployment.bundle import Source, write_bundle
    from foldvote.runtime.job_log import job

if __name__ == "__main__":
    params, made = snakemake.params, snakemake.output
    submission = Submission.model_validate_json(params.submission)
    source = Source(Path(made.archive).parent, Path(params.root), submission)
    wanted = Bundle.model_validate_json(params.bundle)
    with job(snakemake.log[0]):
        write_bundle(source, wanted, Path(made.folder), Path(made.archive), snakemake.threads)
