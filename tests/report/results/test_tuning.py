"""What the report shows of a search."""

from pathlib import Path

from support.html_page import cells_of
from support.report_run import Made


def test_a_search_is_shown_where_there_was_one(home: tuple[Made, str, Path], hostile: tuple[Made, str, Path]) -> None:
    page, other = home[1], hostile[1]
    assert 'href="#tuning"' in page and 'id="tuning"' in page and "tuning" not in other
    assert "The best has macro-F1 0.7500 on folds 0, the unchanged recipe 0.5000." in " ".join(page.split())
    assert "3 complete, 1 pruned, 1 failed" in " ".join(page.split())
    rows = cells_of(page, "Trials, the best first")
    assert [row[2][1] for row in rows] == [0.75, 0.6, 0.5, None, None]
    assert "<i>focal" not in page and "&lt;i&gt;focal" in page
