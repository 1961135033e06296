"""Compute the features of the packed images of a split."""

from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.recipe import Recipe
    from foldvote.config.runtime import Runtime
    from foldvote.inference.features import compute_features
    from foldvote.runtime.gpus import gpu_lease
    from foldvote.runtime.job_log import job, log
    from foldvote.runtime.resources import JobResources

if __name__ == "__main__":
    given, made, of = snakemake.input, snakemake.output, snakemake.wildcards
    with job(snakemake.log[0]), gpu_lease(log, wanted=snakemake.resources.gpu):
        compute_features(
            recipe=Recipe(kind="probe", net=of.net, pretrained=given.pretrained, size=of.size, roi=of.roi),
            pretrained=Path(given.pretrained),
            images_path=Path(given.pixels),
            views=list(snakemake.params.views),
            path=Path(made.features),
            timing=Path(made.timing),
            resources=JobResources(
                snakemake.resources.gpu, snakemake.threads, Runtime.model_validate(snakemake.config["runtime"])
            ),
        )
