"""Write the split in which every image is learnt from, or one of a learning curve."""

from pathlib import Path

from foldvote.runtime.job_log import job
from foldvote.splits.refit_split import write_curve_split, write_refit_split

if __name__ == "__main__":
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    split, files = (Path(given.folds), Path(given.certificate)), (Path(made.folds), Path(made.certificate))
    with job(snakemake.log[0]):
        if share := snakemake.wildcards.get("share"):
            write_curve_split(*split, float(share), params.seed, *files)
        else:
            write_refit_split(*split, *files)
