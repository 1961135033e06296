"""Layouts by name: each that can be configured is there, and its section and its object say the same."""

from typing import Any, get_args

import pytest

from foldvote.config.data import Layout, layout_section
from foldvote.data.layouts.registry import LAYOUTS, layout_of

FACTORS = {"wear": ["yes", "no"], "sex": ["m", "f"]}
SECTIONS = [
    {"layout": "maskbase"},
    {"layout": "maskbase", "age_borders": [25, 50], "test_table": None},
    {"layout": "demo"},
    {"layout": "table", "table": "t.csv", "classes": ["a", "b"]},
    {"layout": "table", "table": "t.csv", "label": None, "factors": FACTORS, "split": "s"},
    {"layout": "folders", "group_pattern": "(.*)", "classes": ["a", "b"], "test": "test"},
]


def test_every_layout_of_the_configuration_is_registered():
    union, _ = get_args(Layout)
    names = [name for section in get_args(union) for name in get_args(section.model_fields["layout"].annotation)]
    assert sorted(names) == sorted(LAYOUTS) == sorted({values["layout"] for values in SECTIONS})


@pytest.mark.parametrize("values", SECTIONS)
def test_a_section_and_its_layout_go_together(values: dict[str, Any]):
    section = layout_section(values)
    layout, numeric = layout_of(section), section.numeric_factor
    label_space = layout.label_space(set())
    assert tuple(label_space.factors) == section.factor_names
    assert {"image_id", "path", "profile", "group", "class_name", *section.factor_names}.isdisjoint(
        name for name, _ in layout.raw_columns
    )
    if numeric is not None:
        assert numeric.column in dict(layout.raw_columns)
        assert len(label_space.factors[numeric.name]) == len(numeric.borders) + 1
        assert list(numeric.borders) == sorted(set(numeric.borders))
    assert section.image_folder("train") or section.image_list("train") or section.tables("train")
    assert not section.submission_table or section.submission_table in section.tables("test")


def test_a_section_of_a_finished_run_is_read_again():
    for values in SECTIONS:
        section = layout_section(values)
        assert layout_section(section.model_dump(mode="json")) == section


def test_the_demo_draws_seven_pictures_of_each_person():
    drawn = layout_section({"layout": "demo", "profiles": 12, "test_profiles": 3}).drawn
    assert (drawn.folder, drawn.persons, drawn.images) == ("demo", 15, 105)
    assert layout_section({"layout": "maskbase"}).drawn is None
