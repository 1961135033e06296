"""Draft label corrections from the label issues of a finished run."""

import json
from pathlib import Path

from foldvote.config.data import layout_section
from foldvote.data.layouts.registry import layout_of
from foldvote.evaluation.label_issues import write_draft
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    params = snakemake.params
    with job(snakemake.log[0]):
        layout = layout_of(layout_section(json.loads(params.data)))
        write_draft(Path(snakemake.input.issues), Path(snakemake.output.draft), params.top, layout)
