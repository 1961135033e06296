"""Check by a probe what a split by image, by group or by another column would score."""

import json
from pathlib import Path

from foldvote.config.data import layout_section
from foldvote.inference.leak_check import LeakInputs, check_leaks
from foldvote.runtime.job_log import job
from foldvote.splits.folds import SplitFiles

if __name__ == "__main__":
    given, params = snakemake.input, snakemake.params
    with job(snakemake.log[0]):
        check_leaks(
            LeakInputs(
                Path(given.features),
                Path(given.manifest),
                Path(given.test) if given.test else None,
                Path(given.test_manifest) if given.test_manifest else None,
                SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate)),
                tuple(Path(path) for path in given.tables),
            ),
            layout_section(json.loads(params.data)),
            list(params.columns),
            params.seed,
            Path(snakemake.output.check),
        )
