"""Batches: their order and augmentation are a function of seed, member and epoch, whatever loads them."""

import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.data.packed_images import PackedImages
from foldvote.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from foldvote.runtime.seeding import MemberSeeds, generator
from foldvote.training import dataloader
from foldvote.training.dataloader import (
    AugmentedImages,
    Batch,
    EpochOrder,
    ResumableSampler,
    balanced_probabilities,
    batches_ahead,
    occurrences,
    training_loader,
)
from foldvote.training.device_augmentation import augmented
from support.tiny_member import Tiny, make_tiny, recipe


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def training_images(tiny: Tiny, seeds: MemberSeeds, on_device: bool = False) -> AugmentedImages:
    packed = PackedImages(tiny.pixels)
    ids = list(packed.row_of)
    rows = packed.rows(ids)
    return AugmentedImages(packed, rows, ids, np.arange(len(ids)) % 3, recipe().augment, seeds, on_device=on_device)


SEEDS = MemberSeeds(5, "tiny", 1)


def loaded(
    tiny: Tiny,
    workers: int,
    seeds: MemberSeeds = SEEDS,
    on_device: bool = False,
    group: ProcessGroup = SINGLE_PROCESS,
    size: int = 16,
) -> list[tuple[bytes, list[int]]]:
    images = training_images(tiny, seeds, on_device)
    sampler = ResumableSampler(EpochOrder(seeds, len(images), size), 2, (0, 0), group)
    batches = augmented(training_loader(images, sampler, workers, pin=False), torch.device("cpu"))
    return [(batch.numpy().tobytes(), labels.tolist()) for batch, labels in batches]


either = pytest.mark.parametrize("on_device", [False, True])


@either
def test_f48_batches_are_the_same_across_worker_processes_and_differ_between_epochs(
    tiny: Tiny, on_device: bool
) -> None:
    torch.manual_seed(1)
    alone = loaded(tiny, 0, on_device=on_device)
    torch.manual_seed(2)
    assert loaded(tiny, 1, on_device=on_device) == alone
    assert loaded(tiny, 2, on_device=on_device) == alone
    assert len(alone) == 6 and len({content for content, _ in alone}) == 6
    for other in (MemberSeeds(6, "tiny", 1), MemberSeeds(5, "tiny", 2), MemberSeeds(5, "other", 1)):
        assert loaded(tiny, 0, other, on_device) != alone


@either
def test_f48_images_are_the_same_in_small_batches_and_in_shards_of_several_processes(
    tiny: Tiny, on_device: bool
) -> None:
    def contents(batches: list[tuple[bytes, list[int]]]) -> bytes:
        return b"".join(content for content, _ in batches)

    whole = contents(loaded(tiny, 0, on_device=on_device))
    assert contents(loaded(tiny, 0, on_device=on_device, size=4)) == whole
    shards = [loaded(tiny, 0, on_device=on_device, group=ProcessGroup(rank, 2)) for rank in (0, 1)]
    assert contents([shard for batch in zip(*shards, strict=True) for shard in batch]) == whole


@either
def test_f48_an_image_is_changed_alike_in_whatever_batch_it_comes(tiny: Tiny, on_device: bool) -> None:
    images = training_images(tiny, MemberSeeds(5, "tiny", 1), on_device)

    def changed(*batches: Batch) -> list[torch.Tensor]:
        return [batch for batch, _ in augmented([images[batch] for batch in batches], torch.device("cpu"))]

    together, later = changed(Batch(1, 0, np.arange(10)), Batch(2, 0, np.arange(10)))
    for place in (0, 4, 9):
        assert torch.equal(changed(Batch(1, 7, np.array([place])))[0][0], together[place])
    assert all(not torch.equal(a, b) for a, b in zip(together, later, strict=True))


def test_f48_a_data_set_sent_to_another_process_changes_images_alike(tiny: Tiny) -> None:
    images = training_images(tiny, SEEDS)
    batch = Batch(0, 0, np.arange(4))
    here = images[batch][0]
    assert torch.equal(pickle.loads(pickle.dumps(images))[batch][0], here)


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 50), st.integers(0, 2**53 - 1))
@settings(max_examples=100, deadline=None)
def test_an_epoch_is_a_permutation_in_whole_batches(images: int, batch_size: int, epoch: int, seed: int) -> None:
    seeds = MemberSeeds(seed, "m", 0)
    batches = EpochOrder(seeds, images, batch_size).batches(epoch)
    assert len(batches) == max(images // batch_size, 1)
    assert all(len(batch) == min(batch_size, images) for batch in batches)
    seen = np.concatenate(batches)
    assert len(set(seen.tolist())) == len(seen) and set(seen.tolist()) <= set(range(images))
    if images % batch_size == 0 or images < batch_size:
        assert sorted(seen) == list(range(images))
    again = EpochOrder(seeds, images, batch_size).batches(epoch)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_epochs_folds_models_and_seeds_have_orders_of_their_own() -> None:
    keys = [(seed, model, fold, epoch) for seed in (0, 1) for model in "ab" for fold in (0, 1) for epoch in (0, 1, 2)]
    orders = {EpochOrder(MemberSeeds(s, m, f), 64, 64).batches(e)[0].tobytes() for s, m, f, e in keys}
    assert len(orders) == len(keys)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=30),
    st.integers(2, 5),
    st.integers(1, 6),
    st.integers(0, 2**53 - 1),
)
@settings(max_examples=100, deadline=None)
def test_batches_hold_shots_of_groups_and_an_epoch_all_that_fits(
    sizes: list[int], shots: int, times: int, seed: int
) -> None:
    groups = generator(seed, "names").permutation(np.repeat(np.arange(len(sizes)), sizes))
    plain = EpochOrder(MemberSeeds(seed, "m", 0), len(groups), shots * times)
    order = replace(plain, groups=groups, shots=shots)
    batches = order.batches(3)
    assert [len(batch) for batch in batches] == [len(batch) for batch in plain.batches(3)]
    seen = np.concatenate(batches)
    assert len(set(seen.tolist())) == len(seen) and set(seen.tolist()) <= set(range(len(groups)))
    blocks = groups[seen[: len(seen) - len(seen) % shots]].reshape(-1, shots)
    whole = sum(size // shots for size in sizes)
    left_out = -(-(len(groups) - len(seen)) // shots)  # blocks of the batch that would be smaller
    assert whole - left_out <= (blocks == blocks[:, :1]).all(axis=1).sum()
    assert (blocks != blocks[:, :1]).any(axis=1).sum() <= sum(size % shots for size in sizes) // shots
    assert all(np.array_equal(a, b) for a, b in zip(batches, order.batches(3), strict=True))


def test_what_is_left_of_groups_is_other_images_of_other_neighbours_in_each_epoch() -> None:
    groups = np.repeat(np.arange(20), 7)
    order = EpochOrder(MemberSeeds(0, "m", 0), 140, 20, groups=groups, shots=4)  # of each group 4 and 3
    rests, pairs = set(), set()
    for epoch in range(6):
        blocks = np.concatenate(order.batches(epoch)).reshape(-1, 4)
        mixed = blocks[(groups[blocks] != groups[blocks[:, :1]]).any(axis=1)]
        assert len(mixed) == 15
        rests |= set(mixed.ravel().tolist())
        pairs |= {frozenset(row) for row in groups[mixed].tolist()}
    assert len(rests) > 130 and len(pairs) > 60


def test_what_one_epoch_leaves_out_comes_in_others() -> None:
    seeds = MemberSeeds(0, "m", 0)
    epochs = [set(np.concatenate(EpochOrder(seeds, 23, 5).batches(epoch)).tolist()) for epoch in range(12)]
    assert all(len(seen) == 20 for seen in epochs)
    assert set.union(*epochs) == set(range(23)) and len({frozenset(seen) for seen in epochs}) > 6


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_f36_a_sampler_begun_in_the_middle_is_the_rest_of_the_whole(
    images: int, batch_size: int, epochs: int, data: st.DataObject
) -> None:
    seeds = MemberSeeds(3, "m", 2)
    whole = list(ResumableSampler(EpochOrder(seeds, images, batch_size), epochs, (0, 0)))
    a_epoch = max(images // batch_size, 1)
    assert [(batch.epoch, batch.step) for batch in whole] == [(e, s) for e in range(epochs) for s in range(a_epoch)]
    done = data.draw(st.integers(0, len(whole)))
    rest = list(ResumableSampler(EpochOrder(seeds, images, batch_size), epochs, divmod(done, a_epoch)))
    assert [(b.epoch, b.step, b.positions.tolist()) for b in rest] == [
        (b.epoch, b.step, b.positions.tolist()) for b in whole[done:]
    ]


def test_f48_two_epochs_draw_different_orders_and_augmentations(tiny: Tiny) -> None:
    order = EpochOrder(SEEDS, 32, 8)
    first, second = (np.concatenate(order.batches(epoch)) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(32))
    assert first.tolist() != second.tolist()
    images = training_images(tiny, SEEDS)
    shown = [images[Batch(epoch, 0, np.arange(8))][0] for epoch in (0, 0, 1)]
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])
    assert len({image.numpy().tobytes() for image in shown[0]}) == 8


def test_the_shards_of_all_processes_are_the_batches_of_one() -> None:
    order = EpochOrder(MemberSeeds(1, "tiny", 0), 32, 8)
    whole = list(ResumableSampler(order, 2, (0, 1)))
    shards = zip(*(ResumableSampler(order, 2, (0, 1), ProcessGroup(rank, 4)) for rank in range(4)), strict=True)
    for batch, parts in zip(whole, shards, strict=True):
        assert {(part.epoch, part.step, len(part.positions)) for part in parts} == {(batch.epoch, batch.step, 2)}
        assert np.concatenate([part.positions for part in parts]).tolist() == batch.positions.tolist()


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30), st.floats(0, 1))
def test_rare_kinds_are_drawn_more_often_by_the_power(kinds: list[str], power: float) -> None:
    chances = balanced_probabilities(kinds, power)
    assert chances.sum() == pytest.approx(1)
    count = {kind: kinds.count(kind) for kind in kinds}
    for one, other in zip(range(len(kinds)), range(1, len(kinds)), strict=False):
        ratio = (count[kinds[other]] / count[kinds[one]]) ** power
        assert chances[one] / chances[other] == pytest.approx(ratio)


def test_chances_draw_an_epoch_with_replacement() -> None:
    order = EpochOrder(MemberSeeds(1, "tiny", 0), 40, 8, np.array([0.5, 0.5] + [0.0] * 38))
    assert set(np.concatenate(order.batches(3)).tolist()) == {0, 1}


@given(st.integers(0, 64), st.integers(1, 10**9), st.integers(0, 10**11))
def test_batches_ahead_never_take_more_than_half_of_shared_memory(workers: int, batch_bytes: int, free: int) -> None:
    fitting, ahead = batches_ahead(workers, batch_bytes, free)
    assert 0 <= fitting <= workers and 0 <= ahead <= 4 and bool(fitting) == bool(ahead)
    assert fitting * ahead * batch_bytes <= free // 2
    if workers and workers * 4 * batch_bytes <= free // 2:
        assert (fitting, ahead) == (workers, 4)  # nothing is given up without need
    assert fitting == min(workers, free // 2 // batch_bytes)  # a process is worth more than a batch ahead


def test_where_nothing_tells_the_room_nothing_is_bounded() -> None:
    assert batches_ahead(7, 10**9, sys.maxsize) == (7, 4)


@pytest.mark.parametrize(("batches", "expected"), [(100, (2, 4)), (5, (2, 1)), (2, (1, 1)), (1, (0, None))])
def test_a_loader_keeps_within_shared_memory_and_gives_the_same_batches(
    tiny: Tiny,
    batches: int,
    expected: tuple[int, int | None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    images = training_images(tiny, SEEDS)
    size = 16 * (32 * 24 * 3 + 8)
    monkeypatch.setattr(dataloader, "_free_shared_memory", lambda: batches * size)
    loader = training_loader(images, ResumableSampler(EpochOrder(SEEDS, len(images), 16), 2, (0, 0)), 2, pin=False)
    assert (loader.num_workers, loader.prefetch_factor) == expected
    assert ("little room" in capfd.readouterr().err) == (expected != (2, 4))
    assert loaded(tiny, 2) == loaded(tiny, 0)
    halves = ResumableSampler(EpochOrder(SEEDS, len(images), 16), 2, (0, 0), ProcessGroup(0, 2))
    assert training_loader(images, halves, 2, pin=False).num_workers == expected[0]  # half a batch in half the memory


@given(st.lists(st.integers(0, 5), max_size=40))
def test_occurrences_count_what_came_before(drawn: list[int]) -> None:
    assert occurrences(np.array(drawn, int)).tolist() == [drawn[:place].count(one) for place, one in enumerate(drawn)]


def test_an_image_drawn_again_within_an_epoch_is_changed_anew(tiny: Tiny) -> None:
    images = training_images(tiny, SEEDS)
    order = EpochOrder(SEEDS, len(images), 16, np.full(len(images), 1 / len(images)))
    whole = list(ResumableSampler(order, 1, (0, 0)))
    shown: dict[int, list[bytes]] = {}
    for batch in whole:
        for position, image in zip(batch.positions.tolist(), images[batch][0], strict=True):
            shown.setdefault(position, []).append(image.numpy().tobytes())
    repeats = sum(len(views) - 1 for views in shown.values())
    identical = sum(len(views) - len(set(views)) for views in shown.values())
    assert repeats >= 10 and identical <= repeats // 10, (identical, repeats)
    rest = list(ResumableSampler(order, 1, (0, 2)))  # and from any step on alike
    assert torch.equal(images[rest[0]][0], images[whole[2]][0])
    shards = [images[next(iter(ResumableSampler(order, 1, (0, 2), ProcessGroup(rank, 2))))][0] for rank in (0, 1)]
    assert torch.equal(torch.cat(shards), images[whole[2]][0])


def test_without_a_sampler_no_image_comes_again(tiny: Tiny) -> None:
    images, order = training_images(tiny, SEEDS), EpochOrder(SEEDS, 48, 16)
    for batch in ResumableSampler(order, 2, (0, 0)):
        assert batch.occurrences is not None and not batch.occurrences.any()
        assert torch.equal(images[batch][0], images[Batch(batch.epoch, batch.step, batch.positions)][0])


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 10)), min_size=1, max_size=40))
def test_balanced_by_weights_every_kind_has_an_equal_part_of_the_loss(drawn):
    kinds, weights = [kind for kind, _ in drawn], np.array([weight for _, weight in drawn])
    chances = balanced_probabilities(kinds, 1, weights)
    assert np.isclose(chances.sum(), 1)
    part = np.bincount(kinds, chances * weights)[sorted(set(kinds))]
    assert np.allclose(part, part[0])
    assert all(len(set(chances[np.array(kinds) == kind].round(12))) == 1 for kind in set(kinds))
    assert np.allclose(balanced_probabilities(kinds, 0.5, np.ones(len(kinds))), balanced_probabilities(kinds, 0.5))
