"""The drawn demo: its folders, quirks and planted errors, and that a split by image leaks on it."""

import csv
import hashlib
import itertools
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from demo_faces.folder import draw_demo, shots_of
from demo_faces.roster import WORN, corrections, enrol
from foldvote.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SEED = 42
STEMS = {"mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal"}


def rows(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digests(root):
    files = sorted(path for path in Path(root).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pictures_of(folder):
    return {path.stem: path for path in folder.iterdir() if not path.name.startswith("._")}


def pixels(path):
    return cv2.imread(str(path)).astype(np.float32) / 255 - 0.5


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "demo"
    draw_demo(root, 60, 4, "64x48", SEED)
    return root


def corrected(root):
    """train.csv with every correction applied: rows by path, each with the shots that changed places."""
    people = {row["path"]: row | {"stems": {}} for row in rows(root / "train/train.csv")}
    for fix in rows(root / "corrections.csv"):
        matching = [row for row in people.values() if row["id"] == fix["id"]]
        assert len(matching) == 1
        if fix["field"] == "shots":
            matching[0]["stems"] = {fix["from"]: fix["to"], fix["to"]: fix["from"]}
        else:
            assert matching[0][fix["field"]] == fix["from"]
            matching[0][fix["field"]] = fix["to"]
    return people


def labelled(root):
    """Every training picture with its true mask and gender*3+age codes and its person: X, mask, stratum, group."""
    images, masks, strata, groups = [], [], [], []
    for path, row in corrected(root).items():
        stratum = ("male", "female").index(row["gender"]) * 3 + (int(row["age"]) >= 30) + (int(row["age"]) >= 60)
        for stem, file in pictures_of(root / "train/images" / path).items():
            true_stem = row["stems"].get(stem, stem)
            images.append(cv2.resize(pixels(file), (18, 24), interpolation=cv2.INTER_AREA).ravel())
            masks.append({"incorrect_mask": 1, "normal": 2}.get(true_stem, 0))
            strata.append(stratum)
            groups.append(row["id"][:6])
    return np.array(images), np.array(masks), np.array(strata), np.array(groups)


def test_folder_has_the_home_tasks_shape(demo):
    assert {path.name for path in demo.iterdir() if path.name[0] != "."} == {
        "train", "eval", "corrections.csv", "eval_answers.csv",
    }  # fmt: skip
    people = rows(demo / "train/train.csv")
    assert list(people[0]) == ["id", "gender", "race", "age", "path"]
    assert len(people) == 60
    assert {row["path"] for row in people} == {path.name for path in (demo / "train/images").iterdir()}
    for row in people:
        assert row["path"] == f"{row['id']}_{row['gender']}_{row['race']}_{row['age']}"
        found = pictures_of(demo / "train/images" / row["path"])
        assert set(found) == STEMS
        for file in found.values():
            assert cv2.imread(str(file)).shape == (64, 48, 3)
            is_png = file.read_bytes().startswith(b"\x89PNG")
            assert is_png == (file.suffix == ".png")


def test_quirks_of_the_home_task(demo):
    files = [path for path in (demo / "train/images").rglob("*.*") if path.is_file()]
    real = [path for path in files if not path.name.startswith("._")]
    counts = Counter(path.suffix for path in real)
    assert set(counts) == {".jpg", ".jpeg", ".png"}
    assert counts[".jpg"] > 0.9 * len(real)
    mixed = [f for f in (demo / "train/images").iterdir() if len({p.suffix for p in pictures_of(f).values()}) == 2]
    assert 1 <= len(mixed) <= 5
    for folder in (demo / "train/images", demo / "eval/images"):
        junk = list(folder.rglob("._*"))
        assert junk
        assert all(path.with_name(path.name[2:]).is_file() and cv2.imread(str(path)) is None for path in junk)


def test_strata_are_unbalanced_and_enough_for_five_folds(demo):
    for people in (rows(demo / "train/train.csv"), corrected(demo).values()):
        bands = {
            row["id"][:6]: (row["gender"], (int(row["age"]) >= 30) + (int(row["age"]) >= 60)) for row in people
        }  # fmt: skip
        counts = Counter(bands.values())
        assert len(counts) == 6
        assert min(counts.values()) >= 5
        assert max(counts.values()) >= 2 * min(counts.values())
    ages = [int(row["age"]) for row in rows(demo / "train/train.csv")]
    assert min(ages) >= 18
    assert max(ages) == 60


def test_large_roster_keeps_the_home_tasks_strata():
    entries = [entry for entry in enrol(2700, SEED, "train") if entry.person == entry.row]
    shares = np.bincount([entry.stratum for entry in entries], minlength=6) / len(entries)
    real = np.array([549, 410, 83, 732, 817, 109]) / 2700
    np.testing.assert_allclose(shares, real, atol=0.01)
    assert len({entry.path for entry in entries}) == len(entries)


def test_f18_suffix_ids_show_the_same_person(demo):
    people = rows(demo / "train/train.csv")
    assert all(row["id"][:6].isdigit() and len(row["id"].split("-")[0]) == 6 for row in people)
    again = [row for row in people if "-" in row["id"]]
    assert len(again) == 3
    first = {row["id"]: row for row in people}
    faces = {
        row["id"]: pixels(pictures_of(demo / "train/images" / row["path"])["normal"])[16:42, 14:34] for row in people
    }
    for row in again:
        twin = row["id"][:6]
        assert row["id"] == f"{twin}-1"
        assert (first[twin]["gender"], first[twin]["age"]) == (row["gender"], row["age"])
        apart = {
            other: min(np.abs(np.roll(face, (down, right), (0, 1)) - faces[row["id"]])[3:-3, 3:-3].mean()
                       for down, right in itertools.product(range(-3, 4), repeat=2))
            for other, face in faces.items() if other != row["id"]
        }  # fmt: skip
        assert sorted(apart, key=apart.get).index(twin) < 3


def test_same_arguments_give_the_same_bytes_whatever_the_workers(tmp_path):
    draw_demo(tmp_path / "one", 6, 2, "32x24", 7, workers=1)
    draw_demo(tmp_path / "two", 6, 2, "32x24", 7, workers=2)
    draw_demo(tmp_path / "other", 6, 2, "32x24", 8, workers=1)
    one, other = digests(tmp_path / "one"), digests(tmp_path / "other")
    assert one == digests(tmp_path / "two")
    drawn = {digest for name, digest in one.items() if name.endswith("g") and "._" not in name}
    assert len(drawn) == 8 * 7
    assert drawn.isdisjoint(other.values())


def test_a_person_is_the_same_whatever_the_number_of_profiles(tmp_path):
    assert enrol(700, SEED, "train")[:60] == enrol(60, SEED, "train")
    draw_demo(tmp_path / "few", 3, 1, "32x24", SEED, workers=1)
    draw_demo(tmp_path / "more", 5, 2, "32x24", SEED, workers=1)
    few, more = digests(tmp_path / "few"), digests(tmp_path / "more")
    images = {name for name in few if "images" in name}
    assert len(images) >= 4 * 7
    assert all(few[name] == more[name] for name in images)


def test_corrections_recover_the_truth(demo):
    fixes = rows(demo / "corrections.csv")
    assert list(fixes[0]) == ["id", "field", "from", "to", "source", "certainty"]
    kinds = Counter((fix["field"], fix["source"], fix["certainty"]) for fix in fixes)
    assert kinds == {
        ("gender", "demo", "certain"): 3, ("shots", "demo", "certain"): 2, ("age", "demo", "likely"): 1,
    }  # fmt: skip
    assert {fix["to"] for fix in fixes if fix["field"] == "gender"} == {"male", "female"}
    truth = {entry.id: (entry.gender, str(entry.age)) for entry in enrol(60, SEED, "train")}
    assert {row["id"]: (row["gender"], row["age"]) for row in corrected(demo).values()} == truth
    given = {row["id"]: (row["gender"], row["age"]) for row in rows(demo / "train/train.csv")}
    assert {id for id in truth if truth[id] != given[id]} == {f["id"] for f in fixes if f["field"] != "shots"}


def test_swapped_shots_hold_each_others_pictures(demo):
    swapped = {fix["id"] for fix in rows(demo / "corrections.csv") if fix["field"] == "shots"}
    entries = enrol(60, SEED, "train")
    assert len(swapped) == 2
    for entry in [entry for entry in entries if entry.id in swapped] + entries[:4]:
        drawn = dict(zip(WORN, (picture for _, picture in shots_of(entry, 64, 48, SEED, "train")), strict=True))
        found = pictures_of(demo / "train/images" / entry.path)
        for stem, other in (("normal", "incorrect_mask"), ("incorrect_mask", "normal")):
            shown = cv2.imread(str(found[stem]))[:, :, ::-1].astype(int)
            nearest = min((stem, other), key=lambda name: np.abs(shown - drawn[name]).mean())
            assert nearest == (other if entry.id in swapped else stem)


def test_likely_age_error_crosses_a_band():
    wrong = [row for row in corrections(enrol(60, SEED, "train")) if row[1] == "age"]
    assert [(int(row[2]) >= 30, int(row[3]) >= 30) for row in wrong] == [(True, False)]


def test_eval_answers_are_true_and_the_placeholder_is_not(demo):
    info, answers = rows(demo / "eval/info.csv"), rows(demo / "eval_answers.csv")
    assert list(info[0]) == list(answers[0]) == ["ImageID", "ans"]
    assert {row["ans"] for row in info} == {"0"}
    names = [row["ImageID"] for row in info]
    assert names == [row["ImageID"] for row in answers]
    assert names != sorted(names)
    assert all(len(name) == 44 and name.endswith(".jpg") and int(name[:40], 16) >= 0 for name in names)
    assert set(names) == {path.name for path in (demo / "eval/images").iterdir() if path.name[:2] != "._"}
    shown = {row["ImageID"]: (int(row["ans"]), pixels(demo / "eval/images" / row["ImageID"])) for row in answers}
    for entry in enrol(4, SEED, "test"):
        for code, picture in shots_of(entry, 64, 48, SEED, "test"):
            wanted = picture[:, :, ::-1] / np.float32(255) - 0.5
            nearest = min(shown, key=lambda name: np.abs(shown[name][1] - wanted).mean())
            answer, _ = shown.pop(nearest)
            assert answer == code * 6 + entry.stratum
    assert shown == {}


def test_smallest_demo(tmp_path):
    draw_demo(tmp_path / "demo", 10, 1, "16x16", 0, workers=1)
    assert len(rows(tmp_path / "demo/train/train.csv")) == 10
    assert len(rows(tmp_path / "demo/eval/info.csv")) == 7
    assert {entry.stratum for entry in enrol(10, 0, "train")} == set(range(6))
    assert {fix["field"] for fix in rows(tmp_path / "demo/corrections.csv")} == {"gender", "shots"}


def test_an_earlier_demo_is_replaced_and_other_files_are_not_touched(tmp_path):
    root = tmp_path / "demo"
    (root / "train/images").mkdir(parents=True)
    draw_demo(root, 2, 1, "16x16", 0, workers=1)
    draw_demo(root, 1, 1, "16x16", 1, workers=1)
    assert len(list((root / "train/images").iterdir())) == 1
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(UserError, match="mine: holds files that the demo has not made"):
        draw_demo(mine, 1, 1, "16x16", 0, workers=1)
    assert [path.name for path in mine.iterdir()] == ["photo.jpg"]
    assert {path.name for path in tmp_path.iterdir()} == {"demo", "mine"}


def test_a_split_by_image_leaks_identity(demo):
    images, _, strata, groups = labelled(demo)
    model = KNeighborsClassifier(1)
    by_image = cross_val_predict(model, images, strata, cv=StratifiedKFold(5, shuffle=True, random_state=0))
    by_person = cross_val_predict(
        model, images, strata, groups=groups, cv=StratifiedGroupKFold(5, shuffle=True, random_state=0)
    )
    leaking = f1_score(strata, by_image, average="macro")
    honest = f1_score(strata, by_person, average="macro")
    assert leaking > honest + 0.3


def test_unseen_persons_can_be_learnt_in_part(demo):
    images, masks, strata, groups = labelled(demo)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(C=0.1, max_iter=200)
    mask = accuracy_score(masks, cross_val_predict(model, images, masks, groups=groups, cv=folds))
    gender = accuracy_score(strata // 3, cross_val_predict(model, images, strata // 3, groups=groups, cv=folds))
    assert mask > 0.8
    assert 0.7 < gender < 0.98


def test_the_demo_of_the_first_run_is_large_enough_to_be_typical(tmp_path):
    """A plain probe's score on the test images lies in its own interval out of fold, as the README's scores do."""
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    data = config["data"]
    parts = [enrol(data[key], config["seed"], part) for key, part in (("profiles", "train"), ("test_profiles", "test"))]
    strata = [np.bincount([entry.stratum for entry in part], minlength=6) for part in parts]
    assert min(own.min() for own in strata) >= 9, "persons of the rarest stratum: with six, the draw decides its score"
    train, test = (own / own.sum() for own in strata)
    np.testing.assert_allclose(train, test, atol=0.03)

    draw_demo(tmp_path, data["profiles"], data["test_profiles"], "48x36", config["seed"], workers=2)
    images, masks, stratum, groups = labelled(tmp_path)
    answers = {row["ImageID"]: int(row["ans"]) for row in rows(tmp_path / "eval_answers.csv")}
    others = [cv2.resize(pixels(tmp_path / "eval/images" / name), (18, 24), interpolation=cv2.INTER_AREA).ravel()
              for name in answers]  # fmt: skip
    truth = masks * 6 + stratum
    probe = make_pipeline(PCA(80, random_state=0), LinearDiscriminantAnalysis("lsqr", shrinkage=0.1))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    guessed = cross_val_predict(probe, images, truth, groups=groups, cv=folds)
    judged = f1_score(list(answers.values()), probe.fit(images, truth).predict(others), average="macro")
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(200):
        chosen = np.concatenate([members[each] for each in rng.integers(len(members), size=len(members))])
        draws.append(f1_score(truth[chosen], guessed[chosen], average="macro", labels=range(18), zero_division=0))
    low, high = np.quantile(draws, (0.025, 0.975))
    assert low <= judged <= high, (f1_score(truth, guessed, average="macro"), low, high, judged)
