"""Pages and drawings: one document, everything escaped, pictures within a budget."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from foldvote.report.html import TEMPLATES, EmbeddedImages, _environment, markup, render_page, table, thumbnail
from foldvote.report.svg import INK, figure_style, inline_svg, new_figure, save_svg

EVIL = "<script>alert(1)</script>\"'&한국 $x_1$"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;한국 $x_1$"


@pytest.fixture
def page(monkeypatch, tmp_path):
    """Renders a page from the content of its main block."""
    for file in TEMPLATES.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr("foldvote.report.html.TEMPLATES", tmp_path)

    def render(main: str, **values) -> str:
        _environment.cache_clear()
        text = f'{{% extends "page.html" %}}{{% block main %}}{main}{{% endblock %}}'
        (tmp_path / "own.html").write_text(text, encoding="utf-8")
        return render_page("own.html", **({"title": "Own"} | values))

    yield render
    _environment.cache_clear()


def figure(label: str):
    with figure_style():
        figure = new_figure(4, 3)
        axes = figure.subplots()
        axes.plot([0, 1], [1, 0], label=label)
        axes.set_title(label)
        axes.legend()
    return figure


def test_f25_every_text_of_a_page_is_escaped(page):
    frame = pd.DataFrame({EVIL: [EVIL, "b"], "n": [1, 2]})
    content = (
        "{{ m.table(t) }}{{ m.image(none, evil) }}{{ m.copy(evil, evil) }}{{ m.tabs('x', [(evil, evil)]) }}{{ evil }}"
    )
    text = page(content, title=EVIL, evil=EVIL, contents=[("a", EVIL)], t=table(frame, EVIL), images=[EVIL])
    assert "<script>alert" not in text
    # title twice, contents; table: caption twice, head, cell; picture; copy twice; tab and panel twice; alone
    assert text.count(ESCAPED) == 13
    assert "\\u003cscript\\u003e" in text  # the JSON of the images


def test_f25_names_in_a_drawing_are_escaped_and_no_formulas():
    drawing = inline_svg(figure(EVIL), EVIL)
    assert "<script" not in drawing.svg
    assert "$x_1$" in drawing.svg and "한국" in drawing.svg
    assert f'aria-label="{ESCAPED}"' in drawing.svg


def test_a_page_loads_nothing_and_allows_nothing_else(page):
    text = page("{{ m.figure(f) }}", f=inline_svg(figure("a"), "a line"))
    assert "default-src 'none'" in text
    assert not [word for word in ('src="http', 'href="http', "@import", "url(http") if word in text]


def test_numbers_are_formatted_and_sort_by_value():
    frame = pd.DataFrame({"name": ["a", None], "f1": [0.123456, float("nan")], "n": [1234, 5], "ok": [True, False]})
    made = table(frame, "t", formats={"f1": ".2f"}, labels={"f1": "macro-F1"})
    assert [(column.label, column.numeric) for column in made.columns] == [
        ("name", False),
        ("macro-F1", True),
        ("n", True),
        ("ok", False),
    ]
    assert [[cell.text for cell in row] for row in made.rows] == [
        ["a", "0.12", "1,234", "True"],
        ["", "", "5", "False"],
    ]
    assert [cell.value for cell in made.rows[0]] == [None, 0.123456, 1234.0, None]
    assert made.rows[1][1].value is None


def test_markup_in_a_cell_stays_markup(page):
    frame = pd.DataFrame({"picture": pd.Series([markup("image", 3, EVIL)], dtype=object)})
    assert f'<td><img class="image" data-image="3" alt="{ESCAPED}">' in page(
        "{{ m.table(t) }}", t=table(frame.assign(x="y")[["x", "picture"]], "t")
    )


def test_images_are_embedded_once_and_within_the_budget():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    one = len(thumbnail(pixels))
    images = EmbeddedImages(budget=2 * one + 10)
    assert [images.add("a", pixels), images.add("b", lambda: pixels), images.add("a", pixels)] == [0, 1, 0]
    assert images.add("c", pixels) is None
    assert images.add("b", pixels) == 1
    assert sum(map(len, images.sources)) == 2 * one <= 2 * one + 10


def test_a_thumbnail_is_as_high_as_asked_and_never_larger_than_the_picture():
    def size(shape):
        uri = thumbnail(np.zeros((*shape, 3), np.uint8), height=64)
        return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size

    assert size((512, 384)) == (48, 64)
    assert size((32, 24)) == (24, 32)
    assert size((100, 1000)) == (128, 13)


def test_equal_figures_are_equal_bytes_and_two_on_a_page_share_no_id(tmp_path):
    for name in ("a", "b"):
        save_svg(figure("x"), tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()

    def ids(drawing):
        return set(re.findall(r'\bid="([^"]+)"', drawing.svg))

    first, second = inline_svg(figure("x"), "one"), inline_svg(figure("y"), "two")
    assert ids(first) and not ids(first) & ids(second)


def test_a_drawing_in_a_page_takes_the_pages_colours_and_in_a_file_its_own(tmp_path):
    save_svg(figure("x"), tmp_path / "a.svg")
    assert INK in (tmp_path / "a.svg").read_text()
    inside = inline_svg(figure("x"), "x").svg
    assert INK not in inside and "var(--ink)" in inside and "var(--series0)" in inside
