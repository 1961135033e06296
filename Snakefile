"""foldvote: photographs in; folds, members, out-of-fold predictions, a vote and a submission out."""

from snakemake.utils import min_version

min_version("9.14")


include: "workflow/rules/common.smk"


pathvars:
    results=CONFIG.results,
    logs=f"{CONFIG.results}/logs",
    benchmarks=f"{CONFIG.results}/benchmarks",


include: "workflow/rules/data.smk"
include: "workflow/rules/folds.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/ensemble.smk"


# Everything: the score, the submission, and what proves them.
rule all:
    default_target: True
    input:
        "<results>/leaderboard.csv",
        "<results>/folds/certificate.json",
        ["<results>/submission.csv", "<results>/data/overlap.json"]
        if CONFIG.has_test
        else [],


# Everything before the first network: look at the folds before hours of training.
rule prepare:
    input:
        "<results>/folds/certificate.json",
        sorted(
            {
                f"<results>/data/pixels/size={m.size}/roi={m.roi}/train.arrow"
                for m in CONFIG.models.values()
            }
        ),


# Every trained network, without predictions.
rule members:
    input:
        member_files("train", "model.safetensors"),


onstart:
    begin_run()


onsuccess:
    print(closing_words(CONFIG, CORES))
