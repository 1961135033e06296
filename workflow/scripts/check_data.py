"""Make the page of the data check."""

from pathlib import Path

from foldvote.config.data import Images, numeric_factor_of
from foldvote.data.image_folders import image_folders
from foldvote.io.paths import named_files
from foldvote.report.data_check.inputs import DataCheckFiles
from foldvote.report.data_check.page import write_data_check
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    given, params = snakemake.input, snakemake.params
    with job(snakemake.log[0]):
        write_data_check(
            files=named_files(
                DataCheckFiles,
                given,
                manifests=dict(zip(params.splits, map(Path, given.manifests), strict=True)),
                quarantines=dict(zip(params.splits, map(Path, given.quarantines), strict=True)),
                light=dict(zip(params.splits, map(Path, given.light), strict=True)),
            ),
            root=image_folders(params.root, params.external),
            rules=Images.model_validate_json(params.images),
            previews={params.model: Path(given.preview)},
            page_path=Path(snakemake.output.page),
            counts_path=Path(snakemake.output.counts),
            numeric=numeric_factor_of(params.numeric),
            seed=params.seed,
            workers=snakemake.threads,
        )
