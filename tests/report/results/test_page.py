"""The report: its numbers are those of the files, hostile names are text, and every cell opens its pictures."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote.config.data import layout_section
from foldvote.data.label_space import LabelSpace
from foldvote.data.layouts.registry import layout_of
from foldvote.errors import UserError
from foldvote.io.files import read_json, sha256_file, write_json
from foldvote.io.parquet import read_table
from foldvote.report.results.gallery import (
    JOINT,
    MOST_OF_ONE,
    MOST_RIGHT,
    MOST_WRONG,
    ReportGallery,
    build_gallery,
    confused_pairs,
)
from foldvote.report.results.inputs import RunResults, read_numbers, read_run
from support.data_folders import encoded, picture, put
from support.report_run import HOME, HOSTILE, QUOTED, SCRIPT, TABLE, Made, drawn_run, drawn_search


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, texts, and the data of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.data: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if tag == "script" and attributes.get("id"):
            self.data[attributes["id"]] = self.data.get(attributes["id"], "") + data
        else:
            self.texts.append(data)

    def of(self, name: str) -> list[str]:
        """Every value of an attribute."""
        return [attributes[name] for _, attributes in self.elements if attributes.get(name)]

    @property
    def gallery(self) -> dict:
        return json.loads(self.data["gallery"])

    @property
    def album(self) -> list[str]:
        return json.loads(self.data["album"])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, str, Path]:
    """One model, plain classes with hostile names: run, page, and its folder."""
    folder = tmp_path_factory.mktemp("hostile")
    made = drawn_run(folder / "data", HOSTILE, {"lite0": None})
    return made, made.report(folder), folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, str, Path]:
    """Classes of two factors; two whole models and one for each factor: run, page, and its folder."""
    folder = tmp_path_factory.mktemp("home")
    models = {"lite0": None, "lite1": None, "masks": ["mask"], "genders": ["gender"]}
    made = drawn_run(folder / "data", HOME, models, persons=18, test=False)
    return made, made.report(folder, {"layout": "demo"}, search=drawn_search(folder / "trials.parquet")), folder


@pytest.fixture(params=["hostile", "home"])
def either(request: pytest.FixtureRequest) -> tuple[Made, str, Path]:
    return request.getfixturevalue(request.param)


def shown(outcome: RunResults) -> ReportGallery:
    return build_gallery(outcome, layout_of(layout_section(TABLE)))


def test_f25_names_from_data_are_text_and_never_elements(hostile: tuple[Made, str, Path]) -> None:
    page = Page(hostile[1])
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 3  # the album, the gallery and our own
    assert "i" not in tags
    assert not [name for _, own in page.elements for name in own if name.startswith("on")]
    assert all(value.startswith(("data:,", "#")) for value in page.of("href") + page.of("src"))
    assert not re.search(r"https?://(?!www\.w3\.org/)", hostile[1])  # the names of SVG are no addresses
    every = "\n".join(page.texts)
    for name in (*HOSTILE.classes, f"{SCRIPT} 0", f"{QUOTED} 1"):
        assert name in every, name
    names = set(page.gallery["texts"])
    assert set(HOSTILE.classes) < names


def test_every_reference_of_a_page_has_its_target(either: tuple[Made, str, Path]) -> None:
    page = Page(either[1])
    ids = page.of("id")
    assert len(ids) == len(set(ids))
    targets = [value[1:] for value in page.of("href") if value.startswith("#")]
    targets += page.of("aria-controls") + page.of("aria-labelledby")
    assert set(targets) <= set(ids)
    assert all(0 <= int(number) < len(page.album) for number in page.of("data-picture"))
    assert len(page.gallery["shots"]) == len({tuple(map(str, shot)) for shot in page.gallery["shots"]})


def test_a_cell_has_its_number_and_opens_its_own_pictures(either: tuple[Made, str, Path]) -> None:
    made, text, _ = either
    page, outcome = Page(text), read_run(made.files)
    gallery, seen = page.gallery, set()
    known = dict(zip(outcome.rows["image_id"], zip(outcome.labels, outcome.predicted, strict=True), strict=True))
    classes = outcome.scheme.classes
    for confusion in shown(outcome).confusions:
        cells = gallery["cells"][confusion.name]
        assert confusion.counts.sum() == len(outcome.rows)
        assert {cell: len(own) for cell, own in cells.items()} == {
            f"{true}-{said}": min(confusion.counts[true, said], MOST_RIGHT if true == said else MOST_WRONG)
            for true, said in np.argwhere(confusion.counts)
        }
        for cell, own in cells.items():
            true, said = map(int, cell.split("-"))
            for number in own:
                picture_number, name, truth, told, *_ = gallery["shots"][number]
                assert 0 <= picture_number < len(page.album)
                assert gallery["texts"][truth] == classes[known[name][0]]
                assert gallery["texts"][told] == classes[known[name][1]]
                if confusion.name == JOINT:
                    assert known[name] == (true, said)
        seen |= {(confusion.name, cell) for cell in cells}
    buttons = [own for tag, own in page.elements if tag == "button" and own.get("class") == "cell"]
    assert {(own["data-of"], own["data-cell"]) for own in buttons} == seen
    numbers = read_json(made.files.metrics)["oof"]["ensemble"]["confusion"]
    assert shown(outcome).confusions[0].counts.tolist() == numbers


def test_the_surest_mistakes_and_the_least_sure_right_answers_stand_first(either: tuple[Made, str, Path]) -> None:
    outcome = read_run(either[0].files)
    joint = shown(outcome).confusions[0]
    for (true, said), places in joint.cells.items():
        sure = outcome.probabilities[places, said]
        assert (np.diff(sure) >= 0).all() if true == said else (np.diff(sure) <= 0).all()
        rest = np.setdiff1d(np.flatnonzero((outcome.labels == true) & (outcome.predicted == said)), places)
        assert true != said or not len(rest) or outcome.probabilities[rest, said].min() >= sure.max()


def test_factors_are_judged_as_in_the_metrics(home: tuple[Made, str, Path]) -> None:
    outcome = read_run(home[0].files)
    for confusion in shown(outcome).confusions[1:]:
        right = np.trace(confusion.counts) / confusion.counts.sum()
        assert right == pytest.approx(outcome.metrics["oof"]["ensemble"]["factors"][confusion.name]["accuracy"])


def cells_of(text: str, caption: str) -> list[list[tuple[str, float | None]]]:
    """A table of a page by its caption: text and number of every cell."""
    start = text.index(f"<caption>{caption}")
    body = text[text.index("<tbody>", start) : text.index("</tbody>", start)]
    found = []
    for row in body.split("<tr>")[1:]:
        cells = re.findall(
            r'<t[hd](?: scope="row")?(?: class="number")?(?: data-value="([^"]*)")?>(.*?)</t[hd]>', row, re.S
        )
        found.append([(content, float(value) if value else None) for value, content in cells])
    return found


def test_the_numbers_of_a_page_are_those_of_the_files(either: tuple[Made, str, Path]) -> None:
    made, text, _ = either
    metrics, board = read_json(made.files.metrics), read_numbers(made.files.leaderboard)
    vote = metrics["oof"]["ensemble"]
    low, high = vote["intervals"]["macro_f1"]
    assert f"Macro-F1 {vote['macro_f1']:.4f} out of fold ({low:.3f} to {high:.3f}, 95 % over persons)." in text
    columns = board.columns[(board.notna() & (board != "")).any()]
    told = cells_of(text, "Leaderboard")
    assert len(told) == len(board)
    for cells, row in zip(told, board[columns].to_dict("records"), strict=True):
        for (_, number), value in zip(cells, row.values(), strict=True):
            if not isinstance(value, str):
                assert number == value or (number is None and np.isnan(value))
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
    shown = text[text.index('<h2 id="persons">') : text.index('<h2 id="suspects">')]
    names = re.findall(r"<p><strong>(.*?)</strong> <span", shown, re.S)
    assert names and len(names) == len(set(names))
    used = read_json(made.files.metrics)["chosen"]
    by_vote = {cells[0][0]: [number for _, number in cells[4:]] for cells in cells_of(text, "Kinds of votes")}
    assert by_vote.pop(used) == [None] * 4
    assert all(number is not None for numbers in by_vote.values() for number in numbers)


def test_the_files_beside_the_page_say_the_same(either: tuple[Made, str, Path]) -> None:
    made, _, folder = either
    metrics = read_json(made.files.metrics)
    names = ["classes.csv", "losses.csv", "pairs.csv", "persons.csv"]
    figures = [f"{name}.svg" for name in ("classes", "confusion", "curves", "reliability", "slices", "votes")]
    assert sorted(path.name for path in (folder / "report").iterdir()) == sorted([*names, *figures])
    scores = pd.read_csv(folder / "report/classes.csv")
    assert scores["support"].sum() == metrics["images"]
    assert scores["f1"].mean() == pytest.approx(metrics["oof"]["ensemble"]["macro_f1"], abs=1e-6)
    losses = pd.read_csv(folder / "report/losses.csv")
    assert len(losses) == metrics["images"] and losses["p_class"].is_monotonic_increasing
    assert losses["loss"].mean() == pytest.approx(metrics["oof"]["ensemble"]["log_loss"], abs=1e-6)
    pairs = pd.read_csv(folder / "report/pairs.csv")
    wrong = pairs[pairs["confusion"] == JOINT]["images"].sum()
    assert wrong == round((1 - metrics["oof"]["ensemble"]["accuracy"]) * metrics["images"])
    if metrics["classes"] == list(HOSTILE.classes):
        assert SCRIPT not in (folder / "report/confusion.svg").read_text(encoding="utf-8")


def test_each_member_that_never_saw_an_image_has_its_say(home: tuple[Made, str, Path]) -> None:
    page, outcome = Page(home[1]), read_run(home[0].files)
    fold_of = outcome.rows.set_index("image_id")["fold"]
    texts = page.gallery["texts"]
    for _, name, *_, opinions in page.gallery["shots"]:
        fold = fold_of[name]
        assert [texts[member] for member, *_ in opinions] == [
            f"{model} {fold}" for model in ("genders", "lite0", "lite1", "masks")
        ]
        assert texts[opinions[0][1]] in HOME.factors["gender"] and texts[opinions[3][1]] in HOME.factors["mask"]
        assert texts[opinions[1][1]] in HOME.classes


def test_top_losses_are_the_least_likely_truths_and_not_of_one_person_alone(home: tuple[Made, str, Path]) -> None:
    outcome = read_run(home[0].files)
    losses = shown(outcome).losses
    given = outcome.chance_of(outcome.labels)
    assert losses[0] == given.argmin()
    assert (np.diff(given[losses]) >= 0).all() and given[losses].max() < 0.5
    assert outcome.rows["profile"].iloc[losses].value_counts().max() <= MOST_OF_ONE


def test_a_suspect_has_a_line_that_corrections_read(hostile: tuple[Made, str, Path]) -> None:
    made, text, _ = hostile
    outcome = read_run(made.files)
    assert len(outcome.issues)
    lines = [line for line in Page(text).of("data-copy") if line]
    assert len(lines) == len(shown(outcome).suspects)
    ids, groups = set(outcome.rows["image_id"]), set(outcome.rows["profile"])
    for line in lines:
        for row in csv.reader(io.StringIO(line)):
            assert len(row) == 6 and row[0] in ids | groups
            assert row[1] == "kind,of" and {row[2], row[3]} < set(HOSTILE.classes) and row[5] == "suspected"


def test_what_networks_look_at_is_shown_beside_the_packed_image(hostile: tuple[Made, str, Path]) -> None:
    page = Page(hostile[1])
    ids = read_run(hostile[0].files).rows["image_id"]
    alts = [own["alt"] for tag, own in page.elements if tag == "img"]
    for words in ("as lite0 0 sees it", f"for {SCRIPT}", f"for {QUOTED}"):
        assert f"{ids[0]} {words}" in alts
    assert f"{ids[1]} nothing speaks for {QUOTED}" in alts


def test_a_search_is_shown_where_there_was_one(home: tuple[Made, str, Path], hostile: tuple[Made, str, Path]) -> None:
    page, other = home[1], hostile[1]
    assert 'href="#tuning"' in page and 'id="tuning"' in page and "tuning" not in other
    assert "The best has macro-F1 0.7500 on folds 0, the recipe as it stood 0.5000." in " ".join(page.split())
    assert "3 complete, 1 pruned, 1 failed" in " ".join(page.split())
    rows = cells_of(page, "Trials, the best first")
    assert [row[2][1] for row in rows] == [0.75, 0.6, 0.5, None, None]
    assert "<i>focal" not in page and "&lt;i&gt;focal" in page


def test_a_vote_that_has_fitted_too_much_to_read_is_named_alone(
    hostile: tuple[Made, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, text, _ = hostile
    assert "lite0/identity" in text[text.index("The vote that is used") :]
    monkeypatch.setattr("foldvote.report.results.page.MOST_FITTED", 10)
    short = made.report(tmp_path)
    assert "see ensemble/weights.json" in short and len(short) < len(text) + 100


def test_pairs_count_images_and_persons(hostile: tuple[Made, str, Path]) -> None:
    outcome = read_run(hostile[0].files)
    joint = shown(outcome).confusions[0]
    pairs = confused_pairs(outcome, joint)
    for row in pairs.to_dict("records"):
        own = outcome.rows[(outcome.labels == row["true"]) & (outcome.predicted == row["said"])]
        assert (row["images"], row["persons"]) == (len(own), own["profile"].nunique())
        assert row["share"] == pytest.approx(len(own) / (outcome.labels == row["true"]).sum())
    assert pairs["images"].is_monotonic_decreasing


def test_a_spent_budget_leaves_cells_out_and_the_page_whole(
    hostile: tuple[Made, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, text, _ = hostile
    spent = 3 * max(map(len, Page(text).album))
    monkeypatch.setattr("foldvote.report.results.page.BUDGET", spent)
    monkeypatch.setattr("foldvote.report.results.page._PIECE", 5)
    page = Page(made.report(tmp_path))
    assert 3 <= len(page.album) < len(Page(text).album)
    assert sum(map(len, page.album)) <= spent
    pictures = [shot[0] for shot in page.gallery["shots"]]
    assert all(number is not None and 0 <= number < len(page.album) for number in pictures)
    assert "picture missing" in " ".join(page.of("class"))  # a top loss without room says so


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
    text, outcome = made.report(tmp_path), read_run(made.files)
    assert len(cells_of(text, "Members")) == members
    page = Page(text)
    validated = len(outcome.rows)
    assert (validated == 36) == (members == 4) and f"{validated} training images of" in text
    assert {len(shot[-1]) for shot in page.gallery["shots"]} == {members // 2 or 1}


def test_equal_inputs_give_equal_pages(hostile: tuple[Made, str, Path], tmp_path: Path) -> None:
    made, text, folder = hostile
    assert made.report(tmp_path, workers=2) == text
    for path in (folder / "report").iterdir():
        assert sha256_file(path) == sha256_file(tmp_path / "report" / path.name)


def test_files_of_different_runs_are_refused(hostile: tuple[Made, str, Path], tmp_path: Path) -> None:
    made = hostile[0]
    certificate = tmp_path / "certificate.json"
    write_json(certificate, read_json(made.files.certificate) | {"data_sha256": "0" * 64})
    with pytest.raises(UserError, match="is of other images than the manifest holds"):
        read_run(replace(made.files, certificate=certificate))
    sidecar = tmp_path / "model=lite0/fold=0/model.json"
    write_json(sidecar, read_json(made.files.sidecars[0]) | {"sha256": "1" * 64})
    with pytest.raises(UserError, match="other weights; run `snakemake -R ensemble`"):
        read_run(replace(made.files, sidecars=[sidecar, made.files.sidecars[1]]))


def test_a_changed_photograph_is_named(hostile: tuple[Made, str, Path], tmp_path: Path) -> None:
    made = hostile[0]
    other = tmp_path / "data"
    shutil.copytree(made.root, other)
    first = read_table(made.files.manifest)["path"].iloc[0]
    put(other / first, encoded(picture(24, 18, seed=9999), "PNG"))
    with pytest.raises(UserError, match="has changed since the manifest was made"):
        Made(other, made.files).report(tmp_path)
