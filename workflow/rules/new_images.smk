"""Predictions of new images by the finished ensemble.

Reads the files of a finished run and the images that `new` names; writes new/. No file of the run is an input: nothing
is trained or voted on anew, and a digest of the ensemble says whether it has changed. The predictions are kept in
new/parts/, which is no output, because Snakemake deletes the outputs of a job that runs again. No other target needs
it: ask for `predict`.
"""

from foldvote.commands.new_images import new_images_faults
from foldvote.data.file_listing import new_listing_digest

if IS_MAIN and "predict" in sys.argv[1:] and (faults := new_images_faults(CONFIG)):
    sys.exit("\n".join(faults))


rule predict:
    """Predict new images with the finished ensemble, only those that it has not predicted yet."""
    input:
        table=own(CONFIG.new if CONFIG.new and not os.path.isdir(CONFIG.new) else None),
    output:
        table="<results>/new/predictions.parquet",
        csv="<results>/new/predictions.csv",
        bad="<results>/new/bad.csv",
    log:
        "<logs>/predict.log",
    benchmark:
        "<benchmarks>/predict.tsv"
    conda:
        "../../envs/foldvote.yaml"
    threads: all_cores
    resources:
        gpu=one_gpu,
    params:
        new=CONFIG.new,
        # A function, because a pattern may contain what looks like a wildcard.
        data=lambda w: canonical(CONFIG.data.model_dump(mode="json")),
        listing=lambda w: new_listing_digest(CONFIG.new, CONFIG.data, CONFIG.results),
        ensemble=lambda w: [
            digest_if_there(f"{CONFIG.results}/ensemble/{name}")
            for name in (
                "oof.parquet",
                "weights.json",
                "prediction.json",
                "budget.json",
                "coverage.json",
            )
        ],
        code=digest("predict_new.py"),
    script:
        "../scripts/predict_new.py"
