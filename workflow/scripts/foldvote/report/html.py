"""One self-contained HTML page: text, tables, drawings and pictures in a single file that needs no network.

A page is a Jinja template in templates/ that extends `page.html`; every value is escaped unless it is Markup, which
only `svg.inline_svg` (a figure) and macros make. In a template `m` has the macros of macros.html. How a page is made::

    album = Album(budget=8_000_000)
    number = album.add("id", pixels)                     # None when the budget is spent
    write_page(path, "report.html", title="Report", contents=[("scores", "Scores")], album=album.sources,
               board=table(frame, "Leaderboard"), number=number,
               curve=drawn(figure, "learning curves"))

and in the template::

    {% extends "page.html" %}
    {% block main %}
    <h2 id="scores">Scores</h2>{{ m.table(board) }}{{ m.figure(curve) }}{{ m.picture(number, "id") }}
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
THUMBNAIL = 128  # height of an embedded picture in pixels, if nothing else is said
QUALITY = 60  # of its WebP: a face of 128 x 96 takes about 2 kB

Format = str | Callable[[Any], Any]


@dataclass(frozen=True)
class Column:
    """A column's head: `label` as shown, `numeric` aligns right and sorts by number, `hint` appears on hovering."""

    label: str
    numeric: bool
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """What a cell shows (text, or Markup) and, in a numeric column, the number it sorts by (None: empty)."""

    text: Any
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """A table for the macro `table`."""

    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    sortable: bool = True


class EmbeddedImages:
    """Pictures of a page, each embedded once however often it is shown, within a budget of bytes.

    Attributes:
        sources: data URIs by number, for the page's value `album`.
        left: bytes of the budget that are not spent, counted as in the file (base64).
    """

    def __init__(self, budget: int, height: int = THUMBNAIL, quality: int = QUALITY) -> None:
        self.sources: list[str] = []
        self.left = budget
        self._height, self._quality = height, quality
        self._number: dict[str, int] = {}

    def add(self, key: str, pixels: npt.NDArray[np.uint8] | Callable[[], npt.NDArray[np.uint8]]) -> int | None:
        """The number of a picture for the macro `picture`; a known key costs nothing.

        Args:
            key: its name, such as the image id.
            pixels: uint8 RGB of shape (height, width, 3), or a function that gives it, called only when needed.

        Returns:
            The number, or None where the picture no longer fits into the budget.
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
    """A picture as a data URI (WebP), shrunk to `height` pixels at most and never wider than twice that.

    Args:
        pixels: uint8 RGB of shape (height, width, 3).
        height: in pixels.
        quality: 0 to 100, of WebP.
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
    """A table of all columns and rows of a frame, for `{{ m.table(...) }}`; the index is left out.

    Args:
        frame: its columns may be numbers, texts or Markup (of dtype object, which keeps it). None and NaN are empty
            cells.
        caption: stands above it, and names it to a screen reader.
        formats: by column, a format such as ".4f" or ",d", or a function of the value; default: ",d" for integers,
            ".4g" for other numbers.
        labels: by column, what the head says; default: the name with blanks for underscores.
        hints: by column, a sentence for those who hover over the head.
        sortable: heads are buttons that sort.
    """
    formats, labels, hints = formats or {}, labels or {}, hints or {}
    columns, cells = [], []
    for name in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name])
        columns.append(Column(labels.get(name, str(name).replace("_", " ")), numeric, hints.get(name, "")))
        usual = ",d" if pd.api.types.is_integer_dtype(frame[name]) else ".4g" if numeric else ""
        cells.append([_cell(value, formats.get(name, usual), numeric) for value in frame[name].tolist()])
    return Table(caption, columns, [list(row) for row in zip(*cells, strict=True)], sortable)


def render_page(template: str, *, title: str, **values: Any) -> str:
    """The text of a page.

    Args:
        template: a file in templates/ that extends page.html.
        title: of the page.
        values: what the template names. `contents` (pairs of anchor and name: the bar at the top) and `album` (data
            URIs) are those of the shell.

    Raises:
        jinja2.UndefinedError: if the template names a value that is not given.
    """
    shell = {"contents": [], "album": []}
    return _environment().get_template(template).render(title=title, **(shell | values))


def write_page(path: Path, template: str, *, title: str, **values: Any) -> None:
    """Write a page, whole or not at all; arguments as `render_page`.

    Raises:
        UserError: if the file cannot be written.
    """
    write_bytes(path, render_page(template, title=title, **values).encode("utf-8", "backslashreplace"))


def markup(macro: str, *arguments: Any) -> Markup:
    """What a macro of macros.html makes, for a cell of a table: `markup("picture", 3, "an image")`."""
    return getattr(_environment().get_template("macros.html").module, macro)(*arguments)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["asset"] = _asset
    return environment


def _asset(name: str) -> Markup:
    """Our own style or script, as it stands."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _cell(value: Any, form: Format, numeric: bool) -> Cell:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return Cell("")
    text = form(value) if callable(form) else format(value, form) if form else value
    return Cell(text if isinstance(text, Markup) else str(text), float(value) if numeric else None)
