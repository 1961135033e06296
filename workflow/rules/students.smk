"""Students against their teachers: one network instead of K.

Reads the predictions of single members; writes ensemble/students.csv. Students are models with `distill` that learn
whole classes. They are trained, predicted and scored like all models by the other rules.
"""


rule students:
    """Compare one network of each student with the vote of its teachers' members."""
    input:
        oof=taught_files("oof"),
        reserve=taught_files("reserve") if CONFIG.folds.reserve else [],
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
    output:
        table="<results>/ensemble/students.csv",
    log:
        "<logs>/students.log",
    benchmark:
        "<benchmarks>/students.tsv"
    conda:
        "../../envs/foldvote.yaml"
    params:
        students=students(),
        members={name: len(FOLDS) for name in students_and_teachers()},
        draws=CONFIG.vote.draws,
        seed=CONFIG.seed,
        code=digest("compare_students.py"),
    script:
        "../scripts/compare_students.py"
