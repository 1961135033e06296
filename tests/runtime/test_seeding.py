"""Counter-based randomness: the same draw everywhere, another draw for every other key."""

from hypothesis import given
from hypothesis import strategies as st

from foldvote.runtime.seeding import derive, generator

KEYS = st.lists(
    st.integers(-(2**63), 2**63) | st.text(st.characters(blacklist_categories=["Cs"]), max_size=6), max_size=5
)


def test_draws_are_the_same_on_every_machine_and_in_every_release() -> None:
    assert derive(42) == 7014992390951794165
    assert derive(42, "augment", 3, 7, "000001_female_Asian_45/normal.jpg") == 1236010098151913863
    assert generator(1, "order", "가", 0, 2).permutation(8).tolist() == [5, 4, 6, 7, 2, 1, 3, 0]


@given(st.integers(0, 2**53 - 1), KEYS, st.integers(0, 2**53 - 1), KEYS)
def test_another_key_or_seed_is_another_draw(seed: int, key: list, other_seed: int, other_key: list) -> None:
    assert 0 <= derive(seed, *key) < 2**63
    assert (derive(seed, *key) == derive(other_seed, *other_key)) == ((seed, key) == (other_seed, other_key))


def test_keys_cannot_be_mistaken_for_one_another() -> None:
    keys = [
        (),
        ("",),
        (0,),
        ("0",),
        (0, 0),
        ("0", 0),
        ("0,0",),
        ("a", "b"),
        ("ab",),
        ("a,b",),
        ('a","b',),
        (-1,),
        ("-1",),
    ]
    seeds = {derive(seed, *key) for seed in (0, 1, 10) for key in keys}
    assert len(seeds) == 3 * len(keys)


def test_neighbouring_keys_give_unrelated_streams() -> None:
    first = [generator(1, "x", number).random() for number in range(4000)]
    assert abs(sum(first) / len(first) - 0.5) < 0.03
    assert len(set(first)) == len(first)
    assert generator(1, "x", 5).random(3).tolist() == generator(1, "x", 5).random(3).tolist()
