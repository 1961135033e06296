"""The finished ensemble as a folder of ONNX files that predicts without this workflow, and as a zip.

Reads what a finished run submitted, its networks, and some images of the data folder for the comparison of predictions;
writes bundle/ and bundle.zip. No other target needs it: ask for `bundle`.
"""

from foldvote.commands.run_checks import refuse_bundle
from foldvote.deployment.bundle_files import bundled_code_digest

if IS_MAIN and "bundle" in sys.argv[1:]:
    refuse_bundle(CONFIG)


rule bundle:
    """Write the ensemble as ONNX files with all that predicts with them, if it predicts as the run does."""
    input:
        weights=member_files("train", "model.safetensors"),
        sidecars=member_files("train", "model.json"),
        oof="<results>/ensemble/oof.parquet",
        test="<results>/ensemble/test.parquet" if CONFIG.has_test else [],
        budget="<results>/ensemble/budget.json" if CONFIG.vote.budget else [],
        budget_votes=budget_votes(),
        metrics="<results>/ensemble/metrics.json",
        vote="<results>/ensemble/weights.json",
        prediction="<results>/ensemble/prediction.json",
        coverage="<results>/ensemble/coverage.json",
        manifest="<results>/data/manifest/split=train/manifest.parquet",
        test_manifest=test_manifest(),
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
    output:
        folder=directory("<results>/bundle"),
        archive="<results>/bundle.zip",
    log:
        "<logs>/bundle.log",
    benchmark:
        "<benchmarks>/bundle.tsv"
    conda:
        "../../envs/foldvote.yaml"
    threads: all_cores
    params:
        root=str(CONFIG.root),
        bundle=canonical(CONFIG.bundle.model_dump(mode="json")),
        submission=canonical(CONFIG.submission.model_dump(mode="json")),
        copied=lambda w: bundled_code_digest(),
        code=digest("build_bundle.py"),
    script:
        "../scripts/build_bundle.py"
