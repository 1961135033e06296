"""Predict the images that one member never saw: its fold's validation persons, or the test images."""

from pathlib import Path

from foldvote.console import job, say
from foldvote.jobs import Machine, SplitFiles
from foldvote.locks import gpu_lease
from foldvote.predict import predict_member
from foldvote.sections import Runtime

if __name__ == "__main__":
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    with job(snakemake.log[0]), gpu_lease(say, wanted=snakemake.resources.gpu):
        predict_member(
            weights=Path(given.weights),
            sidecar=Path(given.sidecar),
            pixels_path=Path(given.pixels),
            split=SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate)),
            part=params.part,
            views=list(params.views),
            predictions=Path(made.predictions),
            timing=Path(made.timing),
            machine=Machine(
                snakemake.resources.gpu, snakemake.threads, Runtime.model_validate(snakemake.config["runtime"])
            ),
        )
