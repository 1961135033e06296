"""Self-contained HTML pages: text, tables, figures and images in a single file that needs no network.

A page is a Jinja template in templates/ that extends `page.html`. Every value is escaped unless it is Markup, which
only `svg.inline_svg` and macros make. In a template, `m` holds the macros of macros.html. How a page is made::

    images = EmbeddedImages(budget=8_000_000)
    number = images.add("id", pixels)                    # None when the budget is spent
    write_page(path, "report.html", title="Report", contents=[("scores", "Scores")], images=images.sources,
               leaderboard=table(frame, "Leaderboard"), number=number,
               curve=inline_svg(figure, "learning curves"))

and in the template::

    {% extends "page.html" %}
    {% block main %}
    <h2 id="scores">Scores</h2>{{ m.table(leaderboard) }}{{ m.figure(curve) }}{{ m.image(number, "id") }}
    {% endblock %}
"""

import base64
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from foldvote.io.files import write_bytes

TEMPLATES = Path(__file__).parent / "templates"
THUMBNAIL = 128  # default height of an embedded image in pixels
QUALITY = 60  # of WebP: a face of 128 x 96 takes about 2 kB

Format = str | Callable[[Any], Any]


@dataclass(frozen=True)
class Column:
    """The header of a column.

    Attributes:
        label: the text that is shown.
        numeric: align to the right and sort by number.
        hint: a tooltip; empty for none.
    """

    label: str
    numeric: bool
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what is shown: text or Markup.
        value: the number that a numeric column is sorted by; None for an empty cell.
    """

    text: Any
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """A table for the macro `table`; `sortable` makes its headers buttons that sort."""

    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    sortable: bool = True


class EmbeddedImages:
    """The images of a page: each is embedded once, however often it is shown, within a budget of bytes.

    Args:
        budget: bytes of base64 text that all images together may have.
        height: height of the embedded images in pixels.
        quality: of WebP, 0 to 100.

    Attributes:
        sources: data URIs by number, for the page's value `images`.
        left: the part of the budget that is not spent.
    """

    def __init__(self, budget: int, height: int = THUMBNAIL, quality: int = QUALITY) -> None:
        self.sources: list[str] = []
        self.left = budget
        self._height, self._quality = height, quality
        self._number: dict[str, int] = {}

    def add(self, key: str, pixels: npt.NDArray[np.uint8] | Callable[[], npt.NDArray[np.uint8]]) -> int | None:
        """Embed an image, unless one with this key is embedded already.

        Args:
            key: its name, such as the image id.
            pixels: uint8 RGB of shape (height, width, 3), or a function that returns it, called only when needed.

        Returns:
            Its number for the macro `image`, or None if it no longer fits into the budget.
        """
        if key not in self._number:
            if self.left <= 0:
                return None
            source = thumbnail(pixels() if callable(pixels) else pixels, self._height, self._quality)
            if len(source) > self.left:
                return None
            self.left -= len(source)
            self._number[key] = len(self.sources)
            self.sources.append(source)
        return self._number[key]


def thumbnail(pixels: npt.NDArray[np.uint8], height: int = THUMBNAIL, quality: int = QUALITY) -> str:
    """An image as a data URI (WebP), shrunk to fit into `height` x 2 `height` pixels.

    Args:
        pixels: uint8 RGB of shape (height, width, 3).
        height: the largest height in pixels; the largest width is twice that.
        quality: of WebP, 0 to 100.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((2 * height, height), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def table(
    frame: pd.DataFrame,
    caption: str,
    *,
    formats: Mapping[str, Format] | None = None,
    labels: Mapping[str, str] | None = None,
    hints: Mapping[str, str] | None = None,
    sortable: bool = True,
) -> Table:
    """A table with all columns and rows of a frame, for `{{ m.table(...) }}`; the index is left out.

    Args:
        frame: columns of numbers, text or Markup (dtype object, which keeps it). None and NaN are empty cells.
        caption: shown above the table, and its name for a screen reader.
        formats: by column, a format such as ".4f" or ",d", or a function of the value; default: ",d" for integers,
            ".4g" for other numbers.
        labels: by column, the text of the header; default: the column's name with spaces for underscores.
        hints: by column, a tooltip of the header.
        sortable: whether headers are buttons that sort.
    """
    formats, labels, hints = formats or {}, labels or {}, hints or {}
    columns, cells = [], []
    for name in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name])
        columns.append(Column(labels.get(name, str(name).replace("_", " ")), numeric, hints.get(name, "")))
        default = ",d" if pd.api.types.is_integer_dtype(frame[name]) else ".4g" if numeric else ""
        cells.append([_cell(value, formats.get(name, default), numeric) for value in frame[name].tolist()])
    return Table(caption, columns, [list(row) for row in zip(*cells, strict=True)], sortable)


def render_page(template: str, *, title: str, **values: Any) -> str:
    """The text of a page.

    Args:
        template: a file in templates/ that extends page.html.
        title: title of the page.
        values: the variables of the template. Two are used by page.html: `contents` (pairs of anchor and name, for the
            bar at the top) and `images` (data URIs).

    Raises:
        jinja2.UndefinedError: if the template uses a variable that is not given.
    """
    base: dict[str, Any] = {"contents": [], "images": []}
    return _environment().get_template(template).render(title=title, **(base | values))


def write_page(path: Path, template: str, *, title: str, **values: Any) -> None:
    """Write a page to `path`, whole or not at all.

    Args:
        path: the HTML file.
        template: a file in templates/ that extends page.html.
        title: title of the page.
        values: the variables of the template, as in `render_page`.

    Raises:
        UserError: if the file cannot be written.
    """
    write_bytes(path, render_page(template, title=title, **values).encode("utf-8", "backslashreplace"))


def markup(macro: str, *arguments: Any) -> Markup:
    """The output of a macro of macros.html, for a cell of a table: `markup("image", 3, "a face")`."""
    return getattr(_environment().get_template("macros.html").module, macro)(*arguments)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["asset"] = _asset
    return environment


def _asset(name: str) -> Markup:
    """The text of a style sheet or script in templates/, not escaped."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _cell(value: Any, form: Format, numeric: bool) -> Cell:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return Cell("")
    text = form(value) if callable(form) else format(value, form) if form else value
    return Cell(text if isinstance(text, Markup) else str(text), float(value) if numeric else None)
