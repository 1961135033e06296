"""The findings of a data check."""

from dataclasses import replace

import pandas as pd

from foldvote.config.layout_facts import NumericFactor
from foldvote.report.data_check.checks import certificate_in_words, run_checks, unusual_images
from foldvote.report.data_check.inputs import DataCheckInputs
from support.data_check_run import PERSONS


def levels_of(inputs: DataCheckInputs, words: str) -> list[str]:
    return [finding.level for finding in run_checks(inputs) if words in finding.text]


def test_findings_have_numbers_and_the_gravest_come_first(inputs: DataCheckInputs) -> None:
    findings = run_checks(inputs)
    levels = [finding.level for finding in findings]
    assert levels == sorted(levels, key=["error", "warning", "ok"].index)
    assert all(finding.remedy for finding in findings if finding.level != "ok")
    assert levels_of(inputs, "1 image of train in quarantine: 1 not_an_image.") == ["warning"]
    assert levels_of(inputs, "1 pair: the same file, two classes.") == ["warning"]
    assert levels_of(inputs, "1 pair: the same file in train and test.") == ["warning"]
    assert levels_of(inputs, "1 correction applied, which changed 3 images. Not applied: 1 (certainty maybe).") == [
        "ok"
    ]
    assert levels_of(inputs, "nearly black, white or of one colour") == ["warning"]
    assert levels_of(inputs, "35 training images of 12 persons in 12 groups. 4 test images.") == ["ok"]
    assert levels_of(inputs, "1 person with more or fewer than 3 images") == ["warning"]
    assert levels_of(inputs, "All images are 40 x 48 pixels") == ["ok"]
    assert levels_of(inputs, "3 images of format JPEG in test, none in train") == ["warning"]
    assert levels_of(inputs, "No image, person, group or file content is on both sides of a fold.") == ["ok"]


def test_names_that_were_joined_and_names_that_look_the_same_are_told(inputs: DataCheckInputs) -> None:
    assert levels_of(inputs, "written in several ways") == levels_of(inputs, "look the same") == []
    train = inputs.train.assign(group=["Ab", "aB"] + ["c"] * (len(inputs.train) - 2))
    train["image_id"] = ["a b", "a  b", "A b", *train["image_id"][3:]]
    changed = replace(
        inputs,
        spellings={"group": {"p00": ["p00", "p00\u00a0"]}},
        manifests=inputs.manifests | {"train": train},
    )
    assert levels_of(changed, r"1 group written in several ways and joined, such as 'p00': 'p00', 'p00\xa0'.") == [
        "warning"
    ]
    assert levels_of(changed, "1 set of different groups that look the same, such as 'Ab' and 'aB'.") == ["warning"]
    assert levels_of(changed, "1 set of different image ids that look the same, such as 'a  b' and 'a b'.") == [
        "warning"
    ]


def test_a_leak_in_the_certificate_is_an_error(inputs: DataCheckInputs) -> None:
    leaking = {**inputs.certificate}
    leaking["folds"] = [fold | {"shared": fold["shared"] | {"profiles": 1}} for fold in leaking["folds"]]
    assert run_checks(replace(inputs, certificate=leaking))[0].level == "error"
    assert "The split leaks: training and validation of some fold share 3 person(s)." in certificate_in_words(leaking)
    assert any("no person" in sentence for sentence in certificate_in_words(inputs.certificate))


def test_what_the_leak_check_told_stands_among_the_findings(inputs: DataCheckInputs) -> None:
    assert not levels_of(inputs, "Leak check")
    told = [{"level": "warning", "text": "holding out whole values of site costs 0.2", "remedy": "Look."}]
    assert levels_of(
        replace(inputs, leaks={"told": told}), "Leak check: holding out whole values of site costs 0.2."
    ) == ["warning"]


def test_a_class_that_light_gives_away_and_a_test_set_of_other_light_are_found(inputs: DataCheckInputs) -> None:
    light = inputs.light["train"].merge(inputs.train[["image_id", "label"]], on="image_id")
    told = light.assign(brightness=100.0 + 50 * light["label"]).drop(columns="label")
    changed = replace(inputs, light={"train": told, "test": inputs.light["test"].assign(brightness=20.0)})
    assert levels_of(changed, "The class explains at most 100% of an image's light or colour (brightness)") == [
        "warning"
    ]
    assert levels_of(changed, "differ from training images most in brightness") == ["warning"]


def test_ages_near_a_border_classes_without_images_and_odd_shapes_are_told(inputs: DataCheckInputs) -> None:
    years = inputs.train["profile"].map({name: 20 + place for place, name in enumerate(PERSONS)})
    aged = inputs.train.assign(age_years=years, width=[60] + [40] * (len(inputs.train) - 1))
    age = NumericFactor(name="age", column="age_years", borders=(30, 60), unit="years")
    changed = replace(
        inputs, manifests={"train": aged}, light={"train": inputs.light["train"]}, overlap=None, numeric=age
    )
    assert levels_of(changed, "33% of the persons are within 2 years of an age border (30 or 60)") == ["ok"]  # 28 to 31
    assert levels_of(changed, "different aspect ratios: width over height from 0.83 to 1.25") == ["warning"]
    assert levels_of(changed, "No test images.") == ["ok"]
    without = replace(
        changed, label_space=replace(inputs.label_space, classes=(*inputs.label_space.classes, "none of these"))
    )
    assert levels_of(without, "1 class without any training image: none of these.") == ["warning"]


def test_strange_light_says_why() -> None:
    light = pd.DataFrame({"image_id": list("abcd"), "brightness": [5.0, 250, 90, 90], "contrast": [3.0, 30, 2, 40]})
    assert unusual_images(light)[["image_id", "why"]].to_numpy().tolist() == [
        ["c", "nearly of one colour"],
        ["a", "nearly black"],
        ["b", "nearly white"],
    ]


def test_images_that_are_only_trained_on_and_weights_are_told(inputs: DataCheckInputs) -> None:
    assert levels_of(inputs, "only trained on") == levels_of(inputs, "weights from") == []
    count = len(inputs.folds)
    equal = replace(inputs, folds=inputs.folds.assign(sample_weight=2.0))
    told = f"weights from 2 to 2 in the loss; together they are worth {count} of {count} images of equal weight."
    assert levels_of(equal, told) == ["ok"]
    one_decides = replace(inputs, folds=inputs.folds.assign(sample_weight=[1e3] + [1.0] * (count - 1)))
    assert levels_of(one_decides, f"worth 1 of {count} images of equal weight") == ["warning"]
    kept_out = [{"fold": fold, "images": fold, "groups": fold} for fold in range(3)]
    outside = {"images": 7, "groups": 4, "shared_groups": 2, "kept_out": kept_out}
    certificate = inputs.certificate | {"train_only": outside}
    assert levels_of(replace(inputs, certificate=certificate), "7 images of 4 groups only trained on") == ["ok"]
    (sentence,) = (text for text in certificate_in_words(certificate) if "only trained on" in text)
    assert sentence.startswith("7 more images of 4 groups are only trained on. 2 of these groups")
    assert "between 0 and 2 of the images were kept out of each member" in sentence
