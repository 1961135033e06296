"""The plan of a run that may take only so long: which models are trained, and for how many epochs.

Reads the packed images and the split; writes plan.json, from which the next start of the workflow takes its models
(common.smk). A run that begins to train without a plan makes it first, in a run of this target, and begins anew.
"""

if IS_MAIN and ASKED.runtime.max_hours is None and "plan" in sys.argv[1:]:
    sys.exit(
        f"{CONFIG_FILE}: has no runtime.max_hours, which says how long a run may take; "
        "add `runtime: {max_hours: 2}`, or see docs/running.md"
    )

if ASKED.runtime.max_hours is not None:

    rule plan:
        """Measure some steps of every model, and plan what fits into the hours of the run."""
        input:
            train=[pixels(one, "train") for one in ASKED.models.values()],
            test=(
                [pixels(one, "test") for one in ASKED.models.values()]
                if ASKED.has_test
                else []
            ),
            folds="<results>/folds/folds.parquet",
            certificate="<results>/folds/certificate.json",
            classes="<results>/data/classes.json",
        output:
            plan="<results>/plan.json",
        log:
            "<logs>/plan.log",
        conda:
            "../../envs/foldvote.yaml"
        threads: cores_of_a_training
        resources:
            gpu=gpus_of_a_member,
        params:
            recipes=[
                [name, canonical(one.definite.model_dump(mode="json"))]
                for name, one in ASKED.models.items()
            ],
            needs={name: list(needs) for name, needs in needs_of(ASKED.models).items()},
            teachers=sorted(
                {name for one in ASKED.models.values() for name in one.teachers}
            ),
            max_hours=ASKED.runtime.max_hours,
            least_epochs=ASKED.runtime.least_epochs,
            at_once=trainings_at_once,
            made_for=plan_identity(ASKED),
            folds=len(FOLDS),
            views=ASKED.predict.views,
            seed=ASKED.seed,
            numeric=learnt_factor(),
            code=digest("plan_run.py"),
        script:
            "../scripts/plan_run.py"
