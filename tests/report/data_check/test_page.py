"""The data check: its findings, its pictures, and its page with hostile names."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from foldvote.config.data import NumericFactor
from foldvote.config.experiment import Config
from foldvote.data.duplicates import report_overlap
from foldvote.data.image_statistics import measure_images
from foldvote.data.manifest import build_manifest
from foldvote.data.packed_images import pack_images
from foldvote.errors import UserError
from foldvote.report.data_check.checks import certificate_in_words, run_checks, strange_light
from foldvote.report.data_check.gallery import MOST_SHOTS, choose_images, choose_subjects
from foldvote.report.data_check.inputs import DataCheckFiles, DataCheckInputs, read_data_check_inputs
from foldvote.report.data_check.page import write_data_check
from foldvote.report.thumbnails import load_thumbnails
from foldvote.splits.folds import make_folds
from support.data_folders import config_for, encoded, picture, put, put_csv, table_folder

SCRIPT, QUOTED, KOREAN = "<script>alert(1)</script>", "a\"b'c & <b>d", "마스크 착용"
PERSONS = [f"{name} {number}" for number in range(4) for name in (SCRIPT, QUOTED, KOREAN)]
SHOTS = 3


def data_folder(root: Path) -> Path:
    """Twelve persons of three classes with hostile names, and some of what a data check should find."""
    rows = [
        (
            f"{place}/{KOREAN}\"'<img src=x onerror=alert(2)> {shot}.png",
            person,
            (SCRIPT, QUOTED, KOREAN)[place % 3],
            "train",
        )
        for place, person in enumerate(PERSONS)
        for shot in range(SHOTS)
    ]
    rows += [(f"test/{number}.jpg", "", "", "test") for number in range(4)]
    table_folder(root, rows, ("path", "group", "label", "split"))
    files = [root / path for path, *_ in rows]
    for number, file in enumerate(files[:-4]):
        file.write_bytes(encoded(picture(seed=number), "PNG"))
    shutil.copy(files[0], files[3])  # one file under two persons and two classes
    shutil.copy(files[6], files[6 + 3 * 3])  # one file under two persons of one class
    shutil.copy(files[1], files[-1])  # in train and in test
    files[2].write_bytes(encoded(np.zeros((48, 40, 3), np.uint8), "PNG"))
    files[5].write_bytes(b"not an image <b>")
    put_csv(
        root / "corrections.csv",
        ("id", "field", "from", "to", "source", "certainty"),
        [
            (PERSONS[4], "label", QUOTED, KOREAN, "<i>me</i>", "certain"),
            (PERSONS[5], "label", KOREAN, SCRIPT, "", "maybe"),
        ],
    )
    return root


def prepared(config: Config, folder: Path, k: int = 3) -> DataCheckFiles:
    """Run the data stages."""
    splits = ("train", "test") if config.has_test else ("train",)
    manifests = {split: folder / f"{split}.parquet" for split in splits}
    quarantines = {split: folder / f"left out of {split}.parquet" for split in splits}
    light = {split: folder / f"light of {split}.parquet" for split in splits}
    files = DataCheckFiles(
        manifests=manifests,
        quarantines=quarantines,
        light=light,
        folds=folder / "folds.parquet",
        certificate=folder / "certificate.json",
        classes=folder / "classes.json",
        overlap=folder / "overlap.json" if config.has_test else None,
    )
    for split in splits:
        build_manifest(config, split, manifests[split], quarantines[split])
        packed = folder / f"{split}.arrow"
        pack_images(manifests[split], config.root, config.images, "16x12", "none", packed, workers=1)
        measure_images(packed, light[split])
    make_folds(manifests["train"], replace_k(config, k), 7, files.folds, files.certificate, files.classes)
    if files.overlap:
        report_overlap(manifests["train"], manifests["test"], 4, files.overlap)
    return files


def replace_k(config: Config, k: int):
    return config.folds.model_copy(update={"k": k})


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, DataCheckFiles, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    layout = {"layout": "table", "table": "table.csv", "split": "split"}
    images = {"on_bad": "quarantine", "min_side": 8}
    config = config_for(data_folder(folder / "data"), layout, images=images, corrections="corrections.csv")
    return config, prepared(config, folder / "made"), folder


@pytest.fixture(scope="module")
def facts(hostile: tuple[Config, DataCheckFiles, Path]) -> DataCheckInputs:
    return read_data_check_inputs(hostile[1])


class Page(HTMLParser):
    """What a browser would make of a page: its elements, attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def page(hostile: tuple[Config, DataCheckFiles, Path]) -> tuple[str, pd.DataFrame]:
    config, files, folder = hostile
    preview = folder / "preview.png"
    put(preview, encoded(picture(), "PNG"))
    path, table = folder / "data_check.html", folder / "counts.csv"
    write_data_check(files, config.root, config.images, {SCRIPT: preview}, path, table, seed=3)
    return path.read_text(encoding="utf-8"), pd.read_csv(table)


def test_f25_names_from_data_are_text_and_never_elements(page: tuple[str, pd.DataFrame]) -> None:
    text, _ = page
    seen = Page(text)
    assert seen.tags.count("script") == 2  # the album and our own script
    assert "b" not in seen.tags and "i" not in seen.tags
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    sources = [value for name, value in seen.attributes if name in ("src", "href") and value]
    assert all(value.startswith(("data:image/", "data:,", "#")) for value in sources)
    every = "\n".join(seen.texts)
    for name in (SCRIPT, QUOTED, KOREAN, PERSONS[1], "<i>me</i>", "<img src=x onerror=alert(2)>"):
        assert name in every, name
    labels = [value for name, value in seen.attributes if name in ("alt", "aria-label")]
    assert f"Pictures of {SCRIPT} 1" in labels
    assert f"First batch of {SCRIPT}" in labels
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)  # the names of SVG are no addresses


def test_the_page_shows_what_was_planted(page: tuple[str, pd.DataFrame], facts: DataCheckInputs) -> None:
    text, table = page
    for words in (
        "the same file, two classes",
        "the same file in train and test",
        "the same file in two groups, which were joined",
        "nearly black",
        "not_an_image",
        "Left aside: 1 (certainty maybe)",
        "seed 7",
    ):
        assert words in text, words
    assert len(re.findall('data-picture="', text)) > len(PERSONS)
    assert 'class="picture missing"' not in text
    assert table[table["kind"] == "class"]["images"].sum() == len(facts.train) == len(PERSONS) * SHOTS - 1


def test_equal_inputs_give_equal_pages(
    hostile: tuple[Config, DataCheckFiles, Path], page: tuple[str, pd.DataFrame]
) -> None:
    config, files, folder = hostile
    again = folder / "again.html"
    previews = {SCRIPT: folder / "preview.png"}
    write_data_check(files, config.root, config.images, previews, again, folder / "again.csv", seed=3, workers=2)
    assert again.read_text(encoding="utf-8") == page[0]


def levels_of(facts: DataCheckInputs, words: str) -> list[str]:
    return [verdict.level for verdict in run_checks(facts) if words in verdict.text]


def test_findings_are_told_with_numbers_those_worth_a_look_first(facts: DataCheckInputs) -> None:
    verdicts = run_checks(facts)
    levels = [verdict.level for verdict in verdicts]
    assert levels == sorted(levels, key=["broken", "look", "ok"].index)
    assert all(verdict.remedy for verdict in verdicts if verdict.level != "ok")
    assert levels_of(facts, "1 image left out of train: 1 not_an_image.") == ["look"]
    assert levels_of(facts, "1 pair: the same file, two classes.") == ["look"]
    assert levels_of(facts, "1 pair: the same file in train and test.") == ["look"]
    assert levels_of(facts, "1 correction applied, which changed 3 images. Left aside: 1 (certainty maybe).") == ["ok"]
    assert levels_of(facts, "nearly black, white or of one colour") == ["look"]
    assert levels_of(facts, "35 training images of 12 persons in 12 groups. 4 test images.") == ["ok"]
    assert levels_of(facts, "1 person with other than 3 images") == ["look"]
    assert levels_of(facts, "All images are 40 x 48 pixels") == ["ok"]
    assert levels_of(facts, "3 images of format JPEG in test, none in train") == ["look"]
    assert levels_of(facts, "Nothing stands on both sides of a fold") == ["ok"]


def test_a_leak_in_the_certificate_is_broken_and_said_so(facts: DataCheckInputs) -> None:
    leaking = {**facts.certificate}
    leaking["folds"] = [fold | {"shared": fold["shared"] | {"profiles": 1}} for fold in leaking["folds"]]
    assert run_checks(replace(facts, certificate=leaking))[0].level == "broken"
    assert "The split leaks: on both sides of some fold stand 3 of person." in certificate_in_words(leaking)
    assert any("no person" in sentence for sentence in certificate_in_words(facts.certificate))


def test_a_class_that_light_gives_away_and_a_test_set_of_other_light_are_found(facts: DataCheckInputs) -> None:
    light = facts.light["train"].merge(facts.train[["image_id", "label"]], on="image_id")
    told = light.assign(brightness=100.0 + 50 * light["label"]).drop(columns="label")
    changed = replace(facts, light={"train": told, "test": facts.light["test"].assign(brightness=20.0)})
    assert levels_of(changed, "The class explains at most 100% of an image's light or colour (brightness)") == ["look"]
    assert levels_of(changed, "differ from training images most in brightness") == ["look"]


def test_ages_near_a_border_classes_without_images_and_odd_shapes_are_told(facts: DataCheckInputs) -> None:
    years = facts.train["profile"].map({name: 20 + place for place, name in enumerate(PERSONS)})
    aged = facts.train.assign(age_years=years, width=[60] + [40] * (len(facts.train) - 1))
    age = NumericFactor(name="age", column="age_years", borders=(30, 60), unit="years")
    changed = replace(
        facts, manifests={"train": aged}, light={"train": facts.light["train"]}, overlap=None, numeric=age
    )
    assert levels_of(changed, "33% of the persons are within 2 years of an age border (30 or 60)") == ["ok"]  # 28 to 31
    assert levels_of(changed, "different shapes: width over height from 0.83 to 1.25") == ["look"]
    assert levels_of(changed, "No test images.") == ["ok"]
    without = replace(changed, scheme=replace(facts.scheme, classes=(*facts.scheme.classes, "none of these")))
    assert levels_of(without, "1 class without any training image: none of these.") == ["look"]


def test_strange_light_says_why() -> None:
    light = pd.DataFrame({"image_id": list("abcd"), "brightness": [5.0, 250, 90, 90], "contrast": [3.0, 30, 2, 40]})
    assert strange_light(light)[["image_id", "why"]].to_numpy().tolist() == [
        ["c", "nearly of one colour"],
        ["a", "nearly black"],
        ["b", "nearly white"],
    ]


def test_facts_of_other_images_are_refused(hostile: tuple[Config, DataCheckFiles, Path], tmp_path: Path) -> None:
    _, files, _ = hostile
    with pytest.raises(UserError, match="was measured on other images"):
        read_data_check_inputs(replace(files, light={**files.light, "train": files.light["test"]}))
    other = json.loads(files.certificate.read_text()) | {"data_sha256": "0" * 64}
    with pytest.raises(UserError, match="is of other images than the manifest holds"):
        read_data_check_inputs(replace(files, certificate=put(tmp_path / "certificate.json", json.dumps(other))))
    stale = {"same_bytes": [["gone", "gone, too"]], "near_duplicates": {"bits": 4, "pairs": 0, "nearest": []}}
    with pytest.raises(UserError, match="names images that the manifests lack"):
        read_data_check_inputs(replace(files, overlap=put(tmp_path / "overlap.json", json.dumps(stale))))


def test_a_contact_sheet_has_persons_of_every_stratum_and_is_the_same_each_time() -> None:
    folds = pd.DataFrame({"profile": [f"p{n:02d}" for n in range(40)], "stratum": ["rare"] * 3 + ["common"] * 37})
    chosen = choose_subjects(folds, 8, seed=1)
    assert (
        chosen == choose_subjects(folds.sample(frac=1, random_state=0), 8, seed=1) != choose_subjects(folds, 8, seed=2)
    )
    assert len(set(chosen)) == 8
    assert {"p00", "p01", "p02"} < set(chosen)
    assert len(choose_subjects(folds, 100, seed=1)) == 40


def test_a_person_with_many_pictures_is_cut_and_the_rest_counted(facts: DataCheckInputs) -> None:
    many = facts.train.assign(profile="one", group="one")
    folds = facts.folds.assign(profile="one", group="one")
    strip = choose_images(replace(facts, manifests=facts.manifests | {"train": many}, folds=folds), seed=0).persons[0]
    assert (strip.name, len(strip.shots), strip.more) == ("one", MOST_SHOTS, len(many) - MOST_SHOTS)
    assert strip.shots[0].note.endswith(f": {SCRIPT}")  # classes differ, so each picture says its own


def test_pictures_are_small_and_a_changed_image_is_named(
    hostile: tuple[Config, DataCheckFiles, Path], facts: DataCheckInputs, tmp_path: Path
) -> None:
    config, _, _ = hostile
    keys = [("train", facts.train["image_id"].iloc[0]), ("test", facts.manifests["test"]["image_id"].iloc[0])]
    small = load_thumbnails(facts.manifests, keys, config.root, config.images, height=12, workers=1)
    assert [small[key].shape for key in keys] == [(12, 10, 3)] * 2
    other = tmp_path / "data"
    shutil.copytree(config.root, other)
    (other / facts.train["path"].iloc[0]).write_bytes(encoded(Image.new("RGB", (40, 48)), "PNG"))
    with pytest.raises(UserError, match="has changed since the manifest was made"):
        load_thumbnails(facts.manifests, keys, other, config.images, height=12, workers=1)


def test_a_damaged_preview_is_refused(hostile: tuple[Config, DataCheckFiles, Path]) -> None:
    config, files, folder = hostile
    broken = put(folder / "broken.png", b"x")
    with pytest.raises(UserError, match=r"broken\.png: cannot be read"):
        write_data_check(files, config.root, config.images, {"m": broken}, folder / "x.html", folder / "x.csv")
