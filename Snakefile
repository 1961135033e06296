"""foldvote: photographs in; folds, members, out-of-fold predictions, a vote and a submission out."""

from snakemake.utils import min_version

min_version("9.14")


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"


pathvars:
    results=CONFIG.results,
    logs=f"{CONFIG.results}/logs",
    benchmarks=f"{CONFIG.results}/benchmarks",


if CONFIG.runtime.container:

    container: CONFIG.runtime.container


include: "workflow/rules/data.smk"
include: "workflow/rules/splits.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/inference.smk"
include: "workflow/rules/ensemble.smk"
include: "workflow/rules/preview.smk"
include: "workflow/rules/check.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/tuning.smk"


# Everything: the score, the submission, and what proves them. Every stage is named, not only the last: where a killed
# run left a stage without its files, Snakemake would otherwise be content with what an earlier run made of them.
rule all:
    default_target: True
    input:
        "<results>/leaderboard.csv",
        stage_files("train"),
        member_files("train", "model.safetensors"),
        member_files("oof", "predictions.parquet"),
        ["<results>/submission.csv", "<results>/data/overlap.json"]
        if CONFIG.has_test
        else [],
        stage_files("test") if CONFIG.has_test else [],
        member_files("test", "predictions.parquet") if CONFIG.has_test else [],


# Everything before the first network: look at the folds before hours of training.
rule prepare:
    input:
        stage_files("train"),


# Every trained network, without predictions.
rule members:
    input:
        member_files("train", "model.safetensors"),


onstart:
    begin_run(
        CONFIG.results,
        GPUS,
        CORES if works_here() else None,
        offered_gpus(),
        CONFIG.runtime.gpus_per_member,
    )


onsuccess:
    print(end_of_run_summary(CONFIG, profile_options(sys.argv[1:], CORES)))
