"""The whole configuration: names of the user's beside those of the tables, and what goes with what."""

from foldvote.config.experiment import check_config
from support.config_faults import BASE, faults


def test_names_of_models_and_factors_that_change_or_overwrite_something_are_refused_at_once() -> None:
    data = {"layout": "table", "table": "t.csv", "label": None, "factors": {"fold": ["a", "b"], "Size": ["s", "l"]}}
    told = faults(BASE | {"data": data})
    assert [line.split(":")[2].strip() for line in told] == ["factors.fold", "factors.Size"]
    told = faults(BASE | {"models": {"007": {"net": "resnet18"}, "A": {"net": "resnet18"}, "a": {"net": "resnet18"}}})
    assert told[0].startswith("config: models.007: is read as a number or a value in model=007; put a letter first")
    assert told[1].startswith("config: models.a: differs from A only in upper and lower case")


def test_levels_that_join_to_one_name_are_refused_in_classes_strata_and_models_of_some_factors() -> None:
    levels = {"grade": ["1", "1-2"], "kind": ["x", "y"], "side": ["2-a", "a"]}
    data = {"layout": "table", "table": "t.csv", "label": None, "factors": levels}
    told = "'1' + '2-a' and '1-2' + 'a' both make the name '1-2-a' (grade x side)"
    check_config(BASE | {"data": data})  # all three together are well
    (line,) = faults(BASE | {"data": data, "folds": {"stratify": ["grade", "side"]}})
    assert line.startswith("config: folds: stratify: the levels ") and told in line
    models = {"a": {"net": "resnet18", "factors": ["grade", "side"]}, "b": {"net": "resnet18", "factors": ["kind"]}}
    (line,) = faults(BASE | {"data": data, "models": models})
    assert line.startswith("config: models.a.factors: the levels ") and told in line
    (line,) = faults(BASE | {"data": data | {"factors": {"grade": levels["grade"], "side": levels["side"]}}})
    assert line.startswith("config: data: factors: the levels ") and "rename a level that holds `-`" in line


def test_a_guest_needs_a_name_of_its_own_and_every_file_that_the_vote_needs() -> None:
    whole = {"oof": "oof.csv", "test": "test.csv", "reserve": "reserve.csv"}
    given = {"a": whole, "b": {"oof": "oof.csv"}}
    assert faults(BASE | {"guests": given, "folds": {"reserve": 0.2}}) == [
        "config: guests.a: there is a model a too; give the guest another name",
        "config: guests.b.test: missing, and the vote is of all models; give its predictions of the test images",
        "config: guests.b.reserve: missing, and the vote is scored on the reserve (folds.reserve); give predictions of "
        "its images, made as those of the test images by networks that have not seen them, or drop the guest",
    ]
    assert check_config(BASE | {"guests": {"b": {"oof": "oof.csv", "test": "test.csv"}}}).guests["b"].reserve is None
    assert len(faults(BASE | {"guests": {"b": {"test": "test.csv"}, "c*d": whole}})) == 2


def test_a_budget_goes_neither_with_guests_nor_with_answers_of_groups() -> None:
    values = BASE | {"data": {"layout": "table", "table": "t.csv"}, "vote": {"budget": {"ms_per_image": 5}}}
    values_of_guests = values | {"guests": {"b": {"oof": "oof.csv", "test": "test.csv"}}}
    assert "vote.budget: what predictions from elsewhere (guests) cost" in faults(values_of_guests)[0]
    assert "vote.budget: submits predictions of images" in faults(values | {"submission": {"unit": "group"}})[0]


def test_a_student_may_teach_another_one() -> None:
    models = {
        "first": {"net": "resnet18"},
        "second": {"net": "resnet18", "distill": {"models": ["first"]}},
        "third": {"net": "resnet18", "distill": {"models": ["second", "first"], "test_images": True}},
    }
    second, third = (check_config(BASE | {"models": models}).models[name] for name in ("second", "third"))
    assert third.learns_from == ["second", "first"] == third.first_round
    assert second.first_round == [] and second.teachers == ["first"]
