"""Trained members as folders for timm and Hugging Face.

Reads the weights of every member and the scores of the ensemble; writes timm/. No other target needs it: ask for
`export_timm`.
"""

if (
    IS_MAIN
    and "export_timm" in sys.argv[1:]
    and (faults := metadata_refusals("export_timm", CONFIG.models))
):
    sys.exit("\n".join(faults))


rule export_timm:
    """Write each member as a folder that timm loads by itself, with a model card."""
    input:
        weights=member_files("train", "model.safetensors"),
        sidecars=member_files("train", "model.json"),
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
        metrics="<results>/ensemble/metrics.json",
        prediction="<results>/ensemble/prediction.json",
    output:
        folders=directory("<results>/timm"),
    log:
        "<logs>/export_timm.log",
    benchmark:
        "<benchmarks>/export_timm.tsv"
    conda:
        "../../envs/foldvote.yaml"
    params:
        code=digest("export_timm.py"),
    script:
        "../scripts/export_timm.py"
