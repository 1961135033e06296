"""The page of the data check: what was planted is shown, hostile names are text."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from foldvote.config.experiment import Config
from foldvote.errors import UserError
from foldvote.report.data_check.inputs import DataCheckFiles, DataCheckInputs
from foldvote.report.data_check.page import write_data_check
from support.data_check_run import KOREAN, PERSONS, QUOTED, SCRIPT, SHOTS
from support.data_folders import encoded, picture, put


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
    assert seen.tags.count("script") == 2  # the images and our own script
    assert "b" not in seen.tags and "i" not in seen.tags
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    sources = [value for name, value in seen.attributes if name in ("src", "href") and value]
    assert all(value.startswith(("data:image/", "data:,", "#")) for value in sources)
    every = "\n".join(seen.texts)
    for name in (SCRIPT, QUOTED, KOREAN, PERSONS[1], "<i>me</i>", "<img src=x onerror=alert(2)>"):
        assert name in every, name
    labels = [value for name, value in seen.attributes if name in ("alt", "aria-label")]
    assert f"Images of {SCRIPT} 1" in labels
    assert f"First batch of {SCRIPT}" in labels
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)  # the names of SVG are no addresses


def test_the_page_shows_what_was_planted(page: tuple[str, pd.DataFrame], inputs: DataCheckInputs) -> None:
    text, table = page
    for words in (
        "the same file, two classes",
        "the same file in train and test",
        "the same file in two groups, which were merged",
        "nearly black",
        "not_an_image",
        "Not applied: 1 (certainty maybe)",
        "seed 7",
    ):
        assert words in text, words
    assert len(re.findall('data-image="', text)) > len(PERSONS)
    assert 'class="image missing"' not in text
    assert table[table["kind"] == "class"]["images"].sum() == len(inputs.train) == len(PERSONS) * SHOTS - 1


def test_equal_inputs_give_equal_pages(
    hostile: tuple[Config, DataCheckFiles, Path], page: tuple[str, pd.DataFrame]
) -> None:
    config, files, folder = hostile
    again = folder / "again.html"
    previews = {SCRIPT: folder / "preview.png"}
    write_data_check(files, config.root, config.images, previews, again, folder / "again.csv", seed=3, workers=2)
    assert again.read_text(encoding="utf-8") == page[0]


def test_a_damaged_preview_is_refused(hostile: tuple[Config, DataCheckFiles, Path]) -> None:
    config, files, folder = hostile
    broken = put(folder / "broken.png", b"x")
    with pytest.raises(UserError, match=r"broken\.png: cannot be read"):
        write_data_check(files, config.root, config.images, {"m": broken}, folder / "x.html", folder / "x.csv")
