"""The list of images to look at: what it is calibrated on, and what its files say."""

import numpy as np
import pandas as pd
import pytest

from foldvote.config.ensemble import Vote
from foldvote.data.label_space import LabelSpace, write_label_space
from foldvote.ensemble.review import OOF, ReviewFiles, ReviewInputs, write_review
from foldvote.ensemble.review import RESERVE as ON_RESERVE
from foldvote.errors import UserError
from foldvote.evaluation.probabilities import softmax
from foldvote.evaluation.vote_table import votes_frame, votes_schema
from foldvote.io.files import read_json
from foldvote.io.parquet import write_table
from foldvote.runtime.seeding import generator
from foldvote.splits.folds import FOLDS
from foldvote.splits.reserve import RESERVE

SPACE = LabelSpace(("cat", "dog", "red fox", "owl"))
COUNT = len(SPACE.classes)


def predictions(key, groups, sure=1.5, shots=4):
    """Images of groups whose errors are alike: a table of ids, groups and labels, and their probabilities."""
    draws = generator(2, "review", *key)
    group = np.repeat(np.arange(groups), shots)
    label = draws.integers(0, COUNT, groups)[group]
    logits = draws.normal(0, 1.2, (groups, COUNT))[group] + draws.normal(0, 0.4, (len(group), COUNT))
    logits[np.arange(len(group)), label] += sure
    names = [f"{'-'.join(map(str, key))}-{number:04d}" for number in group]
    ids = [f"{name}/{number % shots}.jpg" for number, name in enumerate(names)]
    rows = pd.DataFrame({"image_id": ids, "profile": names, "label": label})
    return rows, softmax(logits)


class Folder:
    """The finished ensemble of some simulated groups."""

    def __init__(self, root, *, groups=60, reserve=0, test=40, sure_of_vote=1.5, shuffle=None, known=True):
        self.root, self.reserve, self.test = root, reserve, test
        root.mkdir(exist_ok=True)
        self.shuffle = shuffle
        write_label_space(SPACE, root / "classes.json")
        rows, probabilities = predictions(("train",), groups)
        rows["fold"] = np.arange(groups).repeat(4) % 5
        self.oof = self.write("oof", rows, probabilities)
        split = [rows]
        if reserve:
            rows, probabilities = predictions(("reserve",), reserve, sure_of_vote)
            rows["fold"] = RESERVE
            self.kept_out = self.write("reserve", rows, probabilities)
            split.append(rows)
        folds = pd.concat(split, ignore_index=True).assign(repeat=0, stratum="s")
        write_table(self.shuffled(folds.assign(group=folds["profile"])), root / "folds.parquet", FOLDS)
        if test:
            self.truth, probabilities = predictions(("test",), test, sure_of_vote)
            self.write("test", self.truth[["image_id"]], probabilities)
            group = self.truth["profile"] if known else None
            self.truth.assign(group=group)[["image_id", "group"]].to_parquet(root / "manifest.parquet")

    def shuffled(self, frame):
        if self.shuffle is None:
            return frame
        return frame.iloc[generator(self.shuffle, "rows").permutation(len(frame))].reset_index(drop=True)

    def write(self, name, rows, probabilities):
        frame = votes_frame(rows, probabilities, probabilities.argmax(axis=1), SPACE)
        write_table(
            self.shuffled(frame), self.root / f"{name}.parquet", votes_schema(SPACE.classes, labelled=name != "test")
        )
        return frame

    def make(self, coverage=0.9, covers="image"):
        root = self.root
        inputs = ReviewInputs(
            oof=root / "oof.parquet",
            folds=root / "folds.parquet",
            classes=root / "classes.json",
            reserve=root / "reserve.parquet" if self.reserve else None,
            test=root / "test.parquet" if self.test else None,
            manifest=root / "manifest.parquet" if self.test else None,
        )
        files = ReviewFiles(root / "review.csv", root / "coverage.json", root / "coverage.csv")
        write_review(inputs, files, coverage, covers, 200, 1)
        self.found = read_json(files.coverage)
        self.listing = pd.read_csv(files.review, dtype={"group": str})
        self.slices = pd.read_csv(files.slices, dtype={"value": str})
        return self

    def content(self):
        return [(self.root / name).read_bytes() for name in ("review.csv", "coverage.json", "coverage.csv")]

    def truly_covered(self):
        """Whether the set of each test image contains its class."""
        names = self.truth.set_index("image_id")["label"].map(dict(enumerate(SPACE.classes)))
        return [names[row.image_id] in row.set.split("|") for row in self.listing.itertuples()]


def test_each_test_image_is_listed_once_with_its_set(tmp_path):
    made = Folder(tmp_path).make()
    listing, found = made.listing, made.found
    assert list(listing) == ["rank", "image_id", "group", "prediction", "confidence", "set", "size"]
    assert listing["rank"].tolist() == list(range(1, 161))
    assert set(listing["image_id"]) == set(made.truth["image_id"])
    assert (listing["set"].str.split("|").str.len() == listing["size"]).all()
    assert all(row.set.split("|")[0] == row.prediction for row in listing.itertuples())
    assert (found["source"], found["images"], found["groups"]) == (OOF, 240, 60)
    assert "usually contain the truth more often" in found["note"]
    assert found["image_coverage_low"] < found["image_coverage"] < found["image_coverage_high"]
    assert found["listed"]["set_size"] == pytest.approx(listing["size"].mean(), abs=1e-6)
    assert found["highest"] == pytest.approx(60 / 61, abs=1e-6)


def test_the_most_doubtful_group_comes_first_and_its_images_stay_together(tmp_path):
    listing = Folder(tmp_path).make().listing
    assert (listing["group"] != listing["group"].shift()).sum() == listing["group"].nunique() == 40
    means = listing.groupby("group", sort=False)["confidence"].mean()
    assert means.is_monotonic_increasing
    assert all(own.is_monotonic_increasing for _, own in listing.groupby("group")["confidence"])


def test_images_of_unknown_groups_are_ranked_one_by_one(tmp_path):
    listing = Folder(tmp_path, known=False).make().listing
    assert listing["group"].isna().all()
    assert listing["confidence"].is_monotonic_increasing


def test_the_reserve_calibrates_where_there_is_one(tmp_path):
    """A vote that is far surer than single members: by the reserve the sets of test images are as small as can be."""
    without = Folder(tmp_path / "without", sure_of_vote=3.0, groups=200).make()
    made = Folder(tmp_path / "with", sure_of_vote=3.0, groups=200, reserve=150).make()
    assert (made.found["source"], made.found["groups"]) == (ON_RESERVE, 150)
    assert made.found["listed"]["set_size"] < without.found["listed"]["set_size"]
    assert np.mean(made.truly_covered()) < np.mean(without.truly_covered())
    assert "fold" not in set(made.slices["slice"])
    assert "fold" in set(without.slices["slice"])


def test_without_test_images_out_of_fold_images_get_sets_of_the_other_folds(tmp_path):
    alone = Folder(tmp_path / "alone", test=0).make()
    assert alone.found["listed"]["images"] == len(alone.listing) == 240
    assert alone.found["listed"]["single"] == pytest.approx((alone.listing["size"] == 1).mean(), abs=1e-6)
    beside = Folder(tmp_path / "beside", test=0, reserve=50).make()
    assert beside.found["source"] == ON_RESERVE
    pd.testing.assert_frame_equal(beside.listing, alone.listing)  # the reserve calibrates no single members
    assert {row["listed"] for row in beside.found["handed_over"]} == {None}
    assert None not in {row["listed"] for row in alone.found["handed_over"]}


def test_coverage_is_as_wanted_for_images_and_for_whole_groups(tmp_path):
    """Out of fold over 2,000 groups, cross-fitted, and on 400 test groups that no one has seen."""
    for covers in ("image", "group"):
        made = Folder(tmp_path / covers, groups=2000, test=400).make(covers=covers)
        assert made.found[f"{covers}_coverage"] == pytest.approx(0.9, abs=0.02)
        covered = pd.Series(made.truly_covered()).groupby(made.listing["group"])
        share = (covered.mean() if covers == "image" else covered.all()).mean()
        assert share == pytest.approx(0.9, abs=0.04)
    assert made.found["image_coverage"] > 0.92


def test_slices_add_up(tmp_path):
    made = Folder(tmp_path, groups=200).make()
    for _, table in made.slices.groupby("slice"):
        assert table["images"].sum() == 800
        mean = np.average(table["coverage"], weights=table["images"])
        assert mean == pytest.approx(made.found["image_coverage"], abs=1e-5)
        size = np.average(table["set_size"], weights=table["images"])
        assert size == pytest.approx(made.found["set_size"], abs=1e-5)
        assert (table["coverage_low"] <= table["coverage"]).all()
    assert made.slices.loc[made.slices["slice"] == "fold", "persons"].tolist() == [40] * 5


def test_what_is_handed_over_gives_the_wanted_accuracy_on_other_groups(tmp_path):
    made = Folder(tmp_path, groups=2000).make()
    rows = {(row["of"], row["wanted"]): row for row in made.found["handed_over"]}
    assert len(rows) == 8
    for (answers, wanted), row in rows.items():
        if row["confidence"] is None:
            assert (row["share"], row["listed"]) == (1, len(made.listing))
            continue
        assert row["accuracy"] == pytest.approx(wanted, abs=0.02)
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert row["share_low"] <= row["share"] <= row["share_high"]
        assert row["listed"] == (made.listing["confidence"] < row["confidence"] - 1e-6).sum()
        if answers == "all":
            assert row["share"] <= rows["kept", wanted]["share"]
    curve = made.found["curve"]
    assert curve[0]["share"] == 0
    assert curve[0]["accuracy"] == pytest.approx((made.oof["label"] == made.oof["prediction"]).mean(), abs=1e-5)
    assert curve[-1]["accuracy"] > curve[0]["accuracy"] + 0.1


def test_the_same_again_and_in_any_order_of_rows(tmp_path):
    for number, other in enumerate(({}, {"reserve": 50}, {"test": 0})):
        made = [
            Folder(tmp_path / f"{number}{order}", shuffle=order, **other).make().content() for order in (None, 1, 2)
        ]
        assert made[0] == made[1] == made[2]


def test_a_higher_coverage_gives_larger_sets(tmp_path):
    sets = []
    for coverage in (0.6, 0.9, 0.97):
        listing = Folder(tmp_path).make(coverage).listing.set_index("image_id").sort_index()
        sets.append([set(text.split("|")) for text in listing["set"]])
    assert all(small <= middle <= large for small, middle, large in zip(*sets, strict=True))
    assert sets[0] != sets[1] != sets[2]


def test_a_coverage_that_the_groups_cannot_give_gives_all_classes(tmp_path):
    made = Folder(tmp_path, reserve=8).make()
    assert made.found["highest"] < 0.9
    assert (made.listing["size"] == COUNT).all()
    assert made.found["least_probability"] == 0


def test_a_single_group_is_no_error(tmp_path):
    made = Folder(tmp_path, reserve=1).make()
    assert (made.listing["size"] == COUNT).all()
    assert {row["share"] for row in made.found["handed_over"]} == {1}
    assert made.found["handed_over"][0]["accuracy"] is None


def test_predictions_of_another_split_are_refused(tmp_path):
    made = Folder(tmp_path)
    folds = pd.read_parquet(tmp_path / "folds.parquet")
    write_table(folds[folds["profile"] != "train-0003"], tmp_path / "folds.parquet", FOLDS)
    with pytest.raises(UserError, match=r"ids are not in the split: train-0003/0\.jpg"):
        made.make()
    assert not (tmp_path / "review.csv").exists()


def test_the_key_has_bounds():
    assert Vote().coverage == 0.9
    for wrong in (0.4, 1.0):
        with pytest.raises(ValueError, match="coverage"):
            Vote(coverage=wrong)
