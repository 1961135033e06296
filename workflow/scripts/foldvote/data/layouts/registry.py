"""The layouts by their names in the configuration. A new layout is added here."""

from collections.abc import Callable, Mapping
from typing import Any

from foldvote.config.data import Layout
from foldvote.data.layouts.base import DataLayout
from foldvote.data.layouts.folders import ClassFolders
from foldvote.data.layouts.maskbase import MaskbaseFolders
from foldvote.data.layouts.table import ImageTable

LAYOUTS: Mapping[str, Callable[[Any], DataLayout]] = {
    "maskbase": MaskbaseFolders,
    "demo": MaskbaseFolders,
    "table": ImageTable,
    "folders": ClassFolders,
}


def layout_of(section: Layout) -> DataLayout:
    """The layout of a section `data` of the configuration."""
    return LAYOUTS[section.layout](section)
