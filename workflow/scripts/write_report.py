"""Make the report of a finished run."""

import json
from pathlib import Path

from foldvote.config.data import Images
from foldvote.io.paths import named_files
from foldvote.report.results.inputs import RunFiles
from foldvote.report.results.page import write_report
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    given, params = snakemake.input, snakemake.params
    with job(snakemake.log[0]):
        write_report(
            files=named_files(RunFiles, given),
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
