"""Make the report of a finished run."""

import json
from pathlib import Path

from foldvote.config.data import Images
from foldvote.report.results.inputs import RunFiles
from foldvote.report.results.page import write_report
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    given, params = snakemake.input, snakemake.params
    with job(snakemake.log[0]):
        write_report(
            files=RunFiles(
                manifest=Path(given.manifest),
                folds=Path(given.folds),
                certificate=Path(given.certificate),
                classes=Path(given.classes),
                oof=[Path(path) for path in given.oof],
                histories=[Path(path) for path in given.histories],
                sidecars=[Path(path) for path in given.sidecars],
                timings=[Path(path) for path in given.timings],
                votes=Path(given.votes),
                metrics=Path(given.metrics),
                weights=Path(given.weights),
                slices=Path(given.slices),
                reliability=Path(given.reliability),
                issues=Path(given.issues),
                leaderboard=Path(given.leaderboard),
            ),
            root=Path(params.root),
            rules=Images.model_validate_json(params.images),
            settings=json.loads(params.settings),
            page_path=Path(snakemake.output.page),
            folder=Path(snakemake.output.curves).parent,
            attention=Path(given.attention),
            packed_path=Path(given.pixels),
            workers=snakemake.threads,
            search=Path(params.search) if params.search_digest else None,
        )
