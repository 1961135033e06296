"""Ask the networks of one model which parts of some images speak for which class."""

from pathlib import Path

from foldvote.console import job, say
from foldvote.gradcam import write_attention
from foldvote.jobs import Machine, SplitFiles
from foldvote.locks import gpu_lease
from foldvote.sections import Runtime

if __name__ == "__main__":
    given = snakemake.input
    with job(snakemake.log[0]), gpu_lease(say, wanted=snakemake.resources.gpu):
        write_attention(
            weights=[Path(path) for path in given.weights],
            pixels_path=Path(given.pixels),
            split=SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate)),
            votes_path=Path(given.votes),
            machine=Machine(
                snakemake.resources.gpu, snakemake.threads, Runtime.model_validate(snakemake.config["runtime"])
            ),
            path=Path(snakemake.output.attention),
        )
