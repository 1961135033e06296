"""The report in a real browser, where there is one: docs/look.py finds no fault, and finds one that is there."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from look import BROWSERS, WIDTHS, look
from support.report_run import HOSTILE, drawn_run


def test_f25_a_page_of_hostile_names_works_in_a_browser_wide_and_on_a_phone(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    drawn_run(tmp_path / "data", HOSTILE, {"lite0": None}).report(tmp_path)
    if not any(map(shutil.which, BROWSERS)):
        with pytest.raises(SystemExit, match="no browser found: install one of chromium"):
            look(page, tmp_path / "pictures")
        return
    assert look(page, tmp_path / "pictures") == []
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "pictures").iterdir()}
    assert {name: size[0] for name, size in sizes.items()} == {
        f"report-{name}-{theme}.png": width for name, width in WIDTHS.items() for theme in ("light", "dark")
    }
    assert min(height for _, height in sizes.values()) > 2000
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text("<html><head></head><body><script>missing()</script></body></html>", encoding="utf-8")
    assert any("missing is not defined" in fault for fault in look(spoilt, tmp_path / "pictures"))
