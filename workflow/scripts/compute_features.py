"""Compute the features of the packed images of a split."""

from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.named_weights import weights_path
    from foldvote.config.recipe import Recipe
    from foldvote.config.runtime import Runtime
    from foldvote.inference.features import compute_features
    from foldvote.runtime.gpus import gpu_lease
    from foldvote.runtime.job_log import job, log
    from foldvote.runtime.resources import JobResources

if __name__ == "__main__":
    given, made, of, params = snakemake.input, snakemake.output, snakemake.wildcards, snakemake.params
    runtime = Runtime.model_validate(snakemake.config["runtime"])
    with job(snakemake.log[0]), gpu_lease(log, snakemake.resources.gpu, sharers=runtime.members_per_gpu):
        file = weights_path(params.weights) if params.weights else Path(given.pretrained)
        compute_features(
            recipe=Recipe(kind="probe", net=of.net, pretrained=str(file), size=of.size, roi=of.roi),
            pretrained=file,
            expected=params.pretrained_sha256,
            images_path=Path(given.pixels),
            views=list(params.views),
            path=Path(made.features),
            timing=Path(made.timing),
            resources=JobResources(snakemake.resources.gpu, snakemake.threads, runtime),
        )
