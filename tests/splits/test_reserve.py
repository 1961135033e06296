"""The reserve: whole groups, each stratum its share, none of them in any fold."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.errors import UserError
from foldvote.runtime.seeding import generator
from foldvote.splits.reserve import draw_reserve


def rows_of(groups, strata):
    """Three images per group; the group's stratum, or one of two for groups with several strata."""
    table = [
        {"group": f"g{number:03d}", "stratum": stratum if isinstance(stratum, str) else stratum[image % 2]}
        for number, stratum in zip(range(groups), strata, strict=True)
        for image in range(3)
    ]
    return pd.DataFrame(table)


def test_every_stratum_gives_its_share():
    rows = rows_of(100, ["a"] * 60 + ["b"] * 40)
    kept_out = rows[draw_reserve(rows, 0.15, 5, 1)].drop_duplicates("group")
    assert kept_out["stratum"].value_counts().to_dict() == {"a": 9, "b": 6}


def test_a_rare_stratum_is_left_to_the_folds():
    rows = rows_of(45, ["a"] * 40 + ["b"] * 5)
    assert set(rows[draw_reserve(rows, 0.2, 5, 1)]["stratum"]) == {"a"}


def test_another_seed_draws_others():
    rows = rows_of(100, ["a"] * 100)
    assert (draw_reserve(rows, 0.2, 5, 1) != draw_reserve(rows, 0.2, 5, 2)).any()


def test_where_no_group_can_be_spared_it_says_so():
    rows = rows_of(10, ["a"] * 5 + ["b"] * 5)
    with pytest.raises(UserError, match=r"folds.reserve: 0.2 of 10 groups .* lower folds.k"):
        draw_reserve(rows, 0.2, 5, 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", ("a", "b")]), min_size=30, max_size=80), st.integers(0, 10))
def test_whole_groups_in_any_order_of_the_rows_and_enough_remain(strata, seed):
    rows = rows_of(len(strata), strata)
    total = rows.drop_duplicates(["group", "stratum"])["stratum"].value_counts()
    try:
        kept_out = draw_reserve(rows, 0.2, 3, seed)
    except UserError:
        assert (np.minimum((total * 0.2).round(), total - 3) < 1).any()
        return
    assert not set(rows[kept_out]["group"]) & set(rows[~kept_out]["group"])
    order = generator(seed, "order").permutation(len(rows))
    assert (draw_reserve(rows.iloc[order], 0.2, 3, seed) == kept_out[order]).all()
    left = rows[~kept_out].drop_duplicates(["group", "stratum"])["stratum"].value_counts()
    assert (left.reindex(total.index, fill_value=0) >= np.minimum(total, 3)).all()
