"""What can be known of the data is said before the first job."""

from pathlib import Path

from support.data_folders import put_csv, table_folder
from support.snakemake_run import jobs_that_ran, snakemake, write_config


def test_a_sample_of_other_images_stops_a_run_before_its_first_job(tmp_path: Path) -> None:
    rows = [(f"{n}.png", f"person {n}", "12"[n % 2], "train") for n in range(4)] + [("x.png", "", "", "test")]
    root = table_folder(tmp_path / "data", rows, ("path", "group", "label", "use"))
    put_csv(root / "sample.csv", ["path", "label"], [("a", 0), ("b", 0)])
    data = {"layout": "table", "table": "table.csv", "split": "use"}
    form = {"sample": "sample.csv", "id_column": "path", "answer_column": "label"}
    write_config(tmp_path, data=data, data_root="data", answers=None, folds={"k": 2}, submission=form)
    printed = snakemake(tmp_path, "prepare", code=None)
    assert "sample.csv: no id is that of a test image: its column holds a, b; the images are x.png; give the" in printed
    assert jobs_that_ran(printed) == {}
    assert not (tmp_path / "results/data").exists()


def test_f180_a_mistyped_row_or_fold_is_told_by_the_dry_run(tmp_path: Path) -> None:
    write_config(tmp_path)
    for target, told in (
        ("submission/vote=stackng.csv", "\nvote=stackng: no such method in vote.kinds; did you mean 'stacking'?\n"),
        ("oof/model=tiny/fold=7/predictions.parquet", "\nmodel=tiny/fold=7: there is no fold 7; the last one is 1\n"),
    ):
        assert told in snakemake(tmp_path, "-n", f"results/{target}", code=None)
