"""The report: its numbers are those of the files, hostile names are text, and every cell opens its images."""

import csv
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foldvote.config.data import layout_section
from foldvote.data.label_space import LabelSpace
from foldvote.data.layouts.registry import layout_of
from foldvote.errors import UserError
from foldvote.io.files import read_json, sha256_file, write_json
from foldvote.io.parquet import read_table
from foldvote.report.results.gallery import (
    JOINT,
    MOST_RIGHT,
    MOST_WRONG,
    ReportGallery,
    build_gallery,
)
from foldvote.report.results.inputs import RunResults, read_numbers, read_run
from support.data_folders import encoded, picture, put
from support.html_page import Page, cells_of
from support.report_run import HOME, HOSTILE, QUOTED, SCRIPT, TABLE, Made, drawn_run


def shown(run: RunResults) -> ReportGallery:
    return build_gallery(run, layout_of(layout_section(TABLE)))


def test_f25_names_from_data_are_text_and_never_elements(hostile: tuple[Made, str, Path]) -> None:
    page = Page(hostile[1])
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 3  # the images, those of the confusion matrices and our own
    assert "i" not in tags
    assert not [name for _, own in page.elements for name in own if name.startswith("on")]
    assert all(value.startswith(("data:,", "#")) for value in page.of("href") + page.of("src"))
    assert not re.search(r"https?://(?!www\.w3\.org/)", hostile[1])  # the names of SVG are no addresses
    every = "\n".join(page.texts)
    for name in (*HOSTILE.classes, f"{SCRIPT} 0", f"{QUOTED} 1"):
        assert name in every, name
    names = set(page.confusion_images["texts"])
    assert set(HOSTILE.classes) < names


def test_every_reference_of_a_page_has_its_target(either: tuple[Made, str, Path]) -> None:
    page = Page(either[1])
    ids = page.of("id")
    assert len(ids) == len(set(ids))
    targets = [value[1:] for value in page.of("href") if value.startswith("#")]
    targets += page.of("aria-controls") + page.of("aria-labelledby")
    assert set(targets) <= set(ids)
    assert all(0 <= int(number) < len(page.images) for number in page.of("data-image"))
    assert len(page.confusion_images["images"]) == len(
        {tuple(map(str, shot)) for shot in page.confusion_images["images"]}
    )


def test_a_cell_has_its_number_and_opens_its_own_pictures(either: tuple[Made, str, Path]) -> None:
    made, text, _ = either
    page, run = Page(text), read_run(made.files)
    data, seen = page.confusion_images, set()
    known = dict(zip(run.rows["image_id"], zip(run.labels, run.predicted, strict=True), strict=True))
    classes = run.label_space.classes
    for confusion in shown(run).confusions:
        cells = data["cells"][confusion.name]
        assert confusion.counts.sum() == len(run.rows)
        assert {cell: len(own) for cell, own in cells.items()} == {
            f"{true}-{said}": min(confusion.counts[true, said], MOST_RIGHT if true == said else MOST_WRONG)
            for true, said in np.argwhere(confusion.counts)
        }
        for cell, own in cells.items():
            true, said = map(int, cell.split("-"))
            for number in own:
                picture_number, name, truth, told, *_ = data["images"][number]
                assert 0 <= picture_number < len(page.images)
                assert data["texts"][truth] == classes[known[name][0]]
                assert data["texts"][told] == classes[known[name][1]]
                if confusion.name == JOINT:
                    assert known[name] == (true, said)
        seen |= {(confusion.name, cell) for cell in cells}
    buttons = [own for tag, own in page.elements if tag == "button" and own.get("class") == "cell"]
    assert {(own["data-of"], own["data-cell"]) for own in buttons} == seen
    numbers = read_json(made.files.metrics)["oof"]["ensemble"]["confusion"]
    assert shown(run).confusions[0].counts.tolist() == numbers


def test_a_page_says_what_its_intervals_are_over(hostile: tuple[Made, str, Path], tmp_path: Path) -> None:
    made, text, _ = hostile
    assert ", over persons)." in text and "one group" not in text
    certificate = read_json(made.files.certificate)
    write_json(tmp_path / "certificate.json", certificate | {"groups": certificate["profiles"] - 1})
    merged = Made(made.root, replace(made.files, certificate=tmp_path / "certificate.json")).report(tmp_path)
    assert ", over groups)." in merged and " persons, some of whom are one group, " in merged


def test_the_numbers_of_a_page_are_those_of_the_files(either: tuple[Made, str, Path]) -> None:
    made, text, _ = either
    metrics, leaderboard = read_json(made.files.metrics), read_numbers(made.files.leaderboard)
    vote = metrics["oof"]["ensemble"]
    low, high = vote["intervals"]["macro_f1"]
    assert f"Macro-F1 {vote['macro_f1']:.4f} out of fold (95 % interval {low:.3f} to {high:.3f}, over persons)." in text
    columns = leaderboard.columns[(leaderboard.notna() & (leaderboard != "")).any()]
    told = cells_of(text, "Leaderboard")
    assert len(told) == len(leaderboard)
    for cells, row in zip(told, leaderboard[columns].to_dict("records"), strict=True):
        for (_, number), value in zip(cells, row.values(), strict=True):
            if not isinstance(value, str):
                assert number == value or (number is None and np.isnan(value))
    assert {cells[-3:-1] for cells in map(tuple, cells_of(text, "Members"))} == {(("20%", 0.2), ("1.25", 1.25))}
    by_code = sorted(cells_of(text, "Classes"), key=lambda cells: cells[0][1])
    for cells, name in zip(by_code, metrics["classes"], strict=True):
        own = vote["classes"][name]
        assert [number for _, number in cells[2:6]] == [own[key] for key in ("f1", "precision", "recall", "support")]
    slices = read_numbers(made.files.slices)
    for name, rows in slices.groupby("slice"):
        caption = f"Slices by {name.replace('_', ' ')}"
        if len(rows) == 1:  # all images once more
            assert caption not in text
            continue
        told = cells_of(text, caption)
        assert [[number for _, number in cells[1:6]] for cells in told] == rows.iloc[:, 2:7].to_numpy(float).tolist()
    assert ("test macro-F1" in text) == ("test" in metrics) == (made.root.parent.name.startswith("hostile"))


def test_a_person_is_shown_once_and_the_used_vote_is_not_compared_with_itself(either: tuple[Made, str, Path]) -> None:
    made, text, _ = either
    shown = text[text.index('<h2 id="persons">') : text.index('<h2 id="label-issues">')]
    names = re.findall(r"<p><strong>(.*?)</strong> <span", shown, re.S)
    assert names and len(names) == len(set(names))
    used = read_json(made.files.metrics)["chosen"]
    by_vote = {cells[0][0]: [number for _, number in cells[4:]] for cells in cells_of(text, "Ensemble methods")}
    assert by_vote.pop(used) == [None] * 4
    assert all(number is not None for numbers in by_vote.values() for number in numbers)


def test_each_member_that_never_saw_an_image_has_its_say(home: tuple[Made, str, Path]) -> None:
    page, run = Page(home[1]), read_run(home[0].files)
    fold_of = run.rows.set_index("image_id")["fold"]
    texts = page.confusion_images["texts"]
    for _, name, *_, opinions in page.confusion_images["images"]:
        fold = fold_of[name]
        assert [texts[member] for member, *_ in opinions] == [
            f"{model} {fold}" for model in ("genders", "lite0", "lite1", "masks")
        ]
        assert texts[opinions[0][1]] in HOME.factors["gender"] and texts[opinions[3][1]] in HOME.factors["mask"]
        assert texts[opinions[1][1]] in HOME.classes


def test_a_suspect_has_a_line_that_corrections_read(hostile: tuple[Made, str, Path]) -> None:
    made, text, _ = hostile
    run = read_run(made.files)
    assert len(run.issues)
    lines = [line for line in Page(text).of("data-copy") if line]
    assert len(lines) == len(shown(run).label_issues)
    ids, groups = set(run.rows["image_id"]), set(run.rows["profile"])
    for line in lines:
        for row in csv.reader(io.StringIO(line)):
            assert len(row) == 6 and row[0] in ids | groups
            assert row[1] == "kind,of" and {row[2], row[3]} < set(HOSTILE.classes) and row[5] == "suspected"


def test_what_networks_look_at_is_shown_beside_the_packed_image(hostile: tuple[Made, str, Path]) -> None:
    page = Page(hostile[1])
    ids = read_run(hostile[0].files).rows["image_id"]
    alts = [own["alt"] for tag, own in page.elements if tag == "img"]
    for words in ("input of lite0 0", f"for {SCRIPT}", f"for {QUOTED}"):
        assert f"{ids[0]} {words}" in alts
    assert f"{ids[1]} no evidence for {QUOTED}" in alts


def test_a_vote_that_has_fitted_too_much_to_read_is_named_alone(
    hostile: tuple[Made, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, text, _ = hostile
    assert "lite0/identity" in text[text.index("The ensemble in use") :]
    monkeypatch.setattr("foldvote.report.results.page.MOST_FITTED", 10)
    short = made.report(tmp_path)
    assert "see ensemble/weights.json" in short and len(short) < len(text) + 100


def test_a_spent_budget_leaves_cells_out_and_the_page_whole(
    hostile: tuple[Made, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, text, _ = hostile
    spent = 3 * max(map(len, Page(text).images))
    monkeypatch.setattr("foldvote.report.results.page.BUDGET", spent)
    monkeypatch.setattr("foldvote.report.results.page._CHUNK", 5)
    page = Page(made.report(tmp_path))
    assert 3 <= len(page.images) < len(Page(text).images)
    assert sum(map(len, page.images)) <= spent
    pictures = [shot[0] for shot in page.confusion_images["images"]]
    assert all(number is not None and 0 <= number < len(page.images) for number in pictures)
    assert "image missing" in " ".join(page.of("class"))  # a top loss without room says so


def test_many_classes_are_a_list_and_two_are_a_matrix(tmp_path: Path) -> None:
    many = LabelSpace(tuple(f"class {number:03d}" for number in range(70)))
    text = drawn_run(tmp_path / "many/data", many, {"m": None}, persons=80, shots=1, test=False).report(
        tmp_path / "many"
    )
    assert '<table class="matrix">' not in text and text.count('class="cell"') > 20
    two = drawn_run(tmp_path / "two/data", LabelSpace(("no", "yes")), {"m": None}, persons=6).report(tmp_path / "two")
    assert two.count('<table class="matrix">') == 1


@pytest.mark.parametrize(("split", "members"), [({"repeats": 2}, 4), ({"method": "holdout", "k": 1}, 1)])
def test_repeats_and_a_holdout_have_their_report(tmp_path: Path, split: dict[str, object], members: int) -> None:
    made = drawn_run(tmp_path / "data", HOME, {"m": None}, persons=12, split=split)
    text, run = made.report(tmp_path), read_run(made.files)
    assert len(cells_of(text, "Members")) == members
    page = Page(text)
    validated = len(run.rows)
    assert (validated == 36) == (members == 4) and f"{validated} training images of" in text
    assert {len(shot[-1]) for shot in page.confusion_images["images"]} == {members // 2 or 1}


def test_equal_inputs_give_equal_pages(hostile: tuple[Made, str, Path], tmp_path: Path) -> None:
    made, text, folder = hostile
    assert made.report(tmp_path, workers=2) == text
    for path in (folder / "report").iterdir():
        assert sha256_file(path) == sha256_file(tmp_path / "report" / path.name)


def test_a_changed_photograph_is_named(hostile: tuple[Made, str, Path], tmp_path: Path) -> None:
    made = hostile[0]
    other = tmp_path / "data"
    shutil.copytree(made.root, other)
    first = read_table(made.files.manifest)["path"].iloc[0]
    put(other / first, encoded(picture(24, 18, seed=9999), "PNG"))
    with pytest.raises(UserError, match="has changed since the manifest was made"):
        Made(other, made.files).report(tmp_path)
