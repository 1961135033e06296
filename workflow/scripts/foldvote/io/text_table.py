"""Columns of text for a terminal."""

from collections.abc import Mapping, Sequence


def align_columns(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines of a table, from its columns by their heads: the first column to the left, others to the right."""
    widths = [max(map(len, (head, *cells))) for head, cells in columns.items()]
    lines = []
    for cells in [tuple(columns), *zip(*columns.values(), strict=True)]:
        first, *others = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return lines
