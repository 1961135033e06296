"""What came out, as one page.

Reads what a finished run knows of itself, and some pictures of the data folder; writes report.html, and report/ with
the same figures (SVG) and tables (CSV). Needs no network. Nothing else needs it: ask for `report`.
"""


rule report:
    """Show a finished run on one page: scores, votes, learning curves, confusion with pictures, slices, suspects."""
    input:
        manifest="<results>/data/manifest/split=train/manifest.parquet",
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
        oof=member_files("oof", "predictions.parquet"),
        histories=member_files("train", "history.parquet"),
        sidecars=member_files("train", "model.json"),
        timings=member_timings(),
        votes="<results>/ensemble/oof.parquet",
        metrics="<results>/ensemble/metrics.json",
        weights="<results>/ensemble/weights.json",
        slices="<results>/ensemble/slices.csv",
        reliability="<results>/ensemble/reliability.csv",
        issues="<results>/ensemble/label_issues.parquet",
        leaderboard="<results>/leaderboard.csv",
    output:
        page=report(
            "<results>/report.html",
            caption="../report/report.rst",
            category="Results",
            labels={"what": "report", "as": "page"},
        ),
        curves=beside_report("curves.svg", "learning_curves"),
        votes=beside_report("votes.svg", "votes"),
        confusion=beside_report("confusion.svg", "confusion"),
        reliability=beside_report("reliability.svg", "reliability"),
        slices=beside_report("slices.svg", "slices"),
        classes=beside_report("classes.svg", "classes"),
        scores=beside_report("classes.csv", "classes"),
        pairs=beside_report("pairs.csv", "pairs"),
        persons=beside_report("persons.csv", "persons"),
        losses=beside_report("losses.csv", "losses"),
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    conda:
        "../../envs/foldvote.yaml"
    threads: CORES
    params:
        root=str(CONFIG.root),
        images=canonical(CONFIG.images.model_dump(mode="json")),
        settings=lambda w: canonical(
            CONFIG.model_dump(mode="json", exclude={"runtime"})
        ),
        code=digest("report.py"),
    script:
        "../scripts/report.py"
