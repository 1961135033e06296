"""Plain text tables for a terminal and for files; rich.table would wrap them to the width of the terminal."""

from collections.abc import Mapping, Sequence


def align_columns(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Align the columns of a table: the first column to the left, the others to the right.

    Args:
        columns: cells by header; all columns have the same length.

    Returns:
        The lines of the table, the header first.
    """
    widths = [max(map(len, (head, *cells))) for head, cells in columns.items()]
    lines = []
    for cells in [tuple(columns), *zip(*columns.values(), strict=True)]:
        first, *others = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return lines
