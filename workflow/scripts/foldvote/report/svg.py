"""Figures for pages and files: matplotlib figures as SVG, for light and dark pages.

A figure is drawn in the colours below. A file keeps them. In a page each is replaced by a CSS variable, so that the
figure follows the reader's theme. Text stays text: it can be searched, copied and read aloud, and it uses the page's
font, also for Korean. Names from data are never read as formulas ($) or markup.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from foldvote.io.files import sha256_bytes, write_bytes

INK, FAINT, LINE, PAPER = "#1b1d21", "#5d636e", "#c9cdd4", "#ffffff"
SERIES = ("#0b62a8", "#b8520a", "#1c7c54", "#8d3b8c", "#7a6a00", "#b3304f")  # for lines, bars and points, in this order

_VARIABLES = {INK: "ink", FAINT: "faint", LINE: "line", PAPER: "paper"}
_VARIABLES |= {colour: f"series{number}" for number, colour in enumerate(SERIES)}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "foldvote",
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.prop_cycle": cycler(color=SERIES),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "font.size": 10,
}
_FONTS = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Noto Sans CJK KR", "Malgun Gothic", sans-serif'


@dataclass(frozen=True)
class Drawing:
    """A figure of a page, for the macro `figure`: its SVG element, and a caption (empty for none)."""

    svg: Markup
    caption: str


@contextmanager
def figure_style() -> Iterator[None]:
    """A context manager: figures that are drawn inside it have foldvote's fonts, colours and lines."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # matplotlib measures text in its own font, which lacks Korean; the browser has a font for it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width: float = 8.0, height: float = 3.5) -> Figure:
    """An empty figure with constrained layout, `width` x `height` inches. Call it inside `figure_style`."""
    return Figure(figsize=(width, height), layout="constrained")


def inline_svg(figure: Figure, alt: str, caption: str = "") -> Drawing:
    """A figure as an SVG element for a page.

    Args:
        figure: drawn inside `figure_style`.
        alt: one sentence about what it shows, for screen readers.
        caption: shown below it; empty for none.
    """
    svg = _svg(figure)
    for colour, name in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(
        r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL
    )  # it would apply to the whole page
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    prefix = sha256_bytes((alt + svg).encode())[:8]
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>d{prefix}-", svg)  # ids of two figures must differ
    head = f'<svg role="img" aria-label="{escape(alt)}"'
    return Drawing(Markup(head + svg[svg.index("<svg") + 4 :]), caption)


def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure as an SVG file on a white background.

    Raises:
        UserError: if the file cannot be written.
    """
    svg = re.sub(r"font-family: [^;\"]*", f"font-family: {_FONTS}".replace('"', "'"), _svg(figure))
    start = svg.index(">", svg.index("<svg")) + 1
    svg = f'{svg[:start]}<rect width="100%" height="100%" fill="{PAPER}"/>{svg[start:]}'
    write_bytes(path, svg.encode())


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file on a white background.

    Raises:
        UserError: if the file cannot be written.
    """
    file = io.BytesIO()
    with figure_style():
        figure.savefig(file, format="png", dpi=150, facecolor=PAPER, metadata={"Software": None})
    write_bytes(path, file.getvalue())


def _svg(figure: Figure) -> str:
    """The figure as SVG text; equal figures give equal text."""
    file = io.StringIO()
    with figure_style():
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return file.getvalue()
