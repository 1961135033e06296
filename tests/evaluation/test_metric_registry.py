"""Every metric against scikit-learn, as a point and in the bootstrap draws."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from foldvote.config.metric_names import PARAMETERS
from foldvote.data.label_space import LabelSpace, factor_label_space
from foldvote.errors import UserError
from foldvote.evaluation import ranking
from foldvote.evaluation.bootstrap import drawn_units
from foldvote.evaluation.metric_bootstrap import metric_draws, score_rows
from foldvote.evaluation.metric_registry import Answers, find_metric, find_metrics
from foldvote.evaluation.metrics import MORE_SCORES, score
from foldvote.evaluation.own_metric import try_own_metric
from foldvote.runtime.seeding import generator

NAMES = [
    *(
        "macro_f1",
        "accuracy",
        "log_loss",
        "brier",
        "ece",
        "balanced_accuracy",
        "macro_precision",
        "macro_recall",
        "mcc",
    ),
    *("f_beta-2", "f_beta-0.5", "top_k-1", "top_k-2", "quadratic_kappa"),
    *("roc_auc", "roc_auc_weighted", "roc_auc_partial-0.2", "average_precision"),
]
COUNTED = [
    name for name in NAMES if name.startswith(("balanced", "macro_p", "macro_r", "mcc", "f_beta", "top", "quad"))
]


def drawn(seed, images=80, classes=4, groups=15, ties=False):
    """Labels, probabilities and groups; with ties, probabilities of few different values."""
    draws = generator(seed, "metrics")
    labels = draws.integers(classes, size=images)
    logits = 1.2 * np.eye(classes)[labels] + draws.standard_normal((images, classes))
    powers = np.exp(np.round(logits) if ties else logits)
    return labels, powers / powers.sum(axis=1, keepdims=True), draws.integers(groups, size=images)


def by_sklearn(name, labels, probabilities, weights=None):
    """The metric by scikit-learn, over all classes, of classes that are present where a curve is asked."""
    classes = probabilities.shape[1]
    codes, predicted = list(range(classes)), probabilities.argmax(axis=1)
    counted = {"labels": codes, "average": "macro", "zero_division": 0, "sample_weight": weights}
    base, _, parameter = name.partition("-")
    if base.startswith(("roc_auc", "average")):
        known = [code for code in ([1] if classes == 2 else codes) if 0 < (labels == code).sum() < len(labels)]
        of_class = {
            "roc_auc": sk.roc_auc_score,
            "roc_auc_weighted": sk.roc_auc_score,
            "average_precision": sk.average_precision_score,
            "roc_auc_partial": lambda *own, **more: sk.roc_auc_score(*own, max_fpr=float(parameter), **more),
        }[base]
        values = [of_class(labels == code, probabilities[:, code], sample_weight=weights) for code in known]
        ones = np.ones(len(labels)) if weights is None else weights
        support = [ones[labels == code].sum() for code in known]
        return np.average(values, weights=support if base == "roc_auc_weighted" else None) if known else np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        match base:
            case "balanced_accuracy":
                return sk.balanced_accuracy_score(labels, predicted, sample_weight=weights)
            case "macro_precision":
                return sk.precision_score(labels, predicted, **counted)
            case "macro_recall":
                return sk.recall_score(labels, predicted, **counted)
            case "macro_f1":
                return sk.f1_score(labels, predicted, **counted)
            case "f_beta":
                return sk.fbeta_score(labels, predicted, beta=float(parameter), **counted)
            case "mcc":
                return sk.matthews_corrcoef(labels, predicted, sample_weight=weights)
            case "quadratic_kappa":
                return sk.cohen_kappa_score(labels, predicted, labels=codes, weights="quadratic", sample_weight=weights)
            case "accuracy":
                return sk.accuracy_score(labels, predicted, sample_weight=weights)
            case "log_loss":
                return sk.log_loss(labels, probabilities, labels=codes, sample_weight=weights)
            case "top_k":
                k = int(parameter)
                if k == 1 or classes == 2:
                    return sk.accuracy_score(labels, predicted, sample_weight=weights) if k == 1 else 1.0
                return sk.top_k_accuracy_score(labels, probabilities, k=k, labels=codes, sample_weight=weights)
    return None  # brier and ece are compared elsewhere


def space(classes):
    return LabelSpace(tuple(f"class {code}" for code in range(classes)))


@pytest.mark.parametrize("name", NAMES)
@given(st.integers(0, 2**32), st.integers(2, 5), st.integers(2, 60))
@settings(max_examples=25, deadline=None)
def test_every_metric_is_that_of_scikit_learn(name, seed, classes, images):
    labels, probabilities, _ = drawn(seed, images, classes)
    expected = by_sklearn(name, labels, probabilities)
    found = find_metric(name).value(Answers.of(labels, probabilities), space(classes))
    if expected is not None:
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("roc", "average"))])
@given(st.integers(0, 2**32), st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_equal_probabilities_rank_as_in_scikit_learn(name, seed, classes):
    labels, probabilities, _ = drawn(seed, 40, classes, ties=True)
    expected = by_sklearn(name, labels, probabilities)
    found = find_metric(name).value(Answers.of(labels, probabilities), space(classes))
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def draw_weights(groups, draws, seed):
    """How often each image is drawn in each draw: (draws, images)."""
    unit, times = drawn_units(groups, draws, seed)
    return times[:, unit]


@pytest.mark.parametrize("name", [*COUNTED, "roc_auc_partial-0.2", "average_precision"])
@pytest.mark.parametrize("classes", [2, 4])
def test_each_draw_is_the_score_with_weights(name, classes):
    labels, probabilities, groups = drawn(3, classes=classes)
    rows = {"": Answers.of(labels, probabilities)}
    found = metric_draws(rows, groups, space(classes), find_metric(name), 60, seed=1)[""]
    expected = [by_sklearn(name, labels, probabilities, weights) for weights in draw_weights(groups, 60, seed=1)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("most_bytes", [1, 1000, 1 << 20])
def test_the_counts_of_many_draws_at_once_are_those_of_each_to_the_bit(most_bytes, monkeypatch):
    monkeypatch.setattr(ranking, "_MOST_BYTES", most_bytes)
    labels, probabilities, groups = drawn(7, classes=3, ties=True)
    unit, times = drawn_units(groups, 40, seed=2)
    for code in range(3):
        of = ranking.ranks(labels, probabilities, code)
        for at_once, own in zip(of.counts_of_draws(unit, times), times, strict=True):
            np.testing.assert_array_equal(at_once, of.counts(own[unit]))


@pytest.mark.parametrize("name", ["roc_auc", "roc_auc_weighted"])
@pytest.mark.parametrize(("groups", "images"), [(30, 200), (400, 2800)])
def test_draws_of_the_auc_have_the_spread_of_the_auc_with_weights(name, groups, images):
    labels, probabilities, of_group = drawn(5, images=images, groups=groups)
    answers = Answers.of(labels, probabilities)
    found = metric_draws({"": answers}, of_group, space(4), find_metric(name), 200, seed=1)[""]
    expected = np.array(
        [by_sklearn(name, labels, probabilities, weights) for weights in draw_weights(of_group, 200, seed=1)]
    )
    assert np.corrcoef(found, expected)[0, 1] > 0.99
    assert np.std(found) == pytest.approx(np.std(expected), rel=0.05)
    assert np.mean(found) == pytest.approx(np.mean(expected), abs=0.1 * np.std(expected))


@pytest.mark.parametrize("name", ["mcc", "roc_auc"])
def test_more_groups_than_bags_give_the_same_draws_by_sums_and_by_weights(name):
    labels, probabilities, _ = drawn(8, images=4500, classes=3)
    groups = generator(8, "order").permutation(4500)
    found = metric_draws({"": Answers.of(labels, probabilities)}, groups, space(3), find_metric(name), 20, seed=1)[""]
    expected = [by_sklearn(name, labels, probabilities, weights) for weights in draw_weights(groups, 20, seed=1)]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_all_scores_at_once_are_each_alone_and_nothing_depends_on_the_order_of_images(name):
    labels, probabilities, groups = drawn(11)
    order = generator(11, "order").permutation(len(labels))
    metrics, own_space = find_metrics([name]), space(4)
    rows = {"a": Answers.of(labels, probabilities), "b": Answers.of(labels, probabilities[::-1])}
    found = score_rows(rows, groups, own_space, metrics, 50, seed=2)["a"]
    assert found.points[name] == pytest.approx(metrics[0].value(rows["a"], own_space), abs=1e-12)
    mixed = {"a": Answers.of(labels[order], probabilities[order])}
    again = score_rows(mixed, groups[order], own_space, metrics, 50, seed=2)["a"]
    np.testing.assert_allclose(again.draws[name], found.draws[name], atol=1e-12)


def test_an_absent_class_is_named_and_left_out():
    labels, probabilities, _ = drawn(4, classes=4)
    kept = labels != 2
    scored = score(labels[kept], probabilities[kept], space(4))
    assert scored["absent_classes"] == ["class 2"]
    assert scored["classes"]["class 2"]["roc_auc"] is None
    values = [sk.roc_auc_score(labels[kept] == code, probabilities[kept][:, code]) for code in (0, 1, 3)]
    assert scored["roc_auc"] == pytest.approx(np.mean(values))
    assert [scored["classes"][f"class {code}"]["roc_auc"] for code in (0, 1, 3)] == pytest.approx(values)


def test_one_class_alone_has_no_auc_and_says_so():
    labels, probabilities = np.zeros(5, int), np.full((5, 2), 0.5)
    assert score(labels, probabilities, space(2))["roc_auc"] is None
    assert np.isnan(find_metric("roc_auc").value(Answers.of(labels, probabilities), space(2)))


@given(st.integers(0, 2**32), st.integers(2, 4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_scores_of_a_row_are_those_of_the_registry(seed, classes, ties):
    labels, probabilities, _ = drawn(seed, 30, classes, ties=ties)
    scored, answers = score(labels, probabilities, space(classes)), Answers.of(labels, probabilities)
    for name in MORE_SCORES:
        value = find_metric(name).value(answers, space(classes))
        assert scored[name] == pytest.approx(value, abs=1e-12) or (scored[name] is None and np.isnan(value))


def test_a_factor_is_scored_by_the_sums_of_its_levels():
    own_space = factor_label_space({"mask": ("on", "off"), "age": ("young", "middle", "old")})
    labels, probabilities, groups = drawn(6, images=120, classes=6)
    of_class = own_space.level_codes("age")
    summed = probabilities @ np.eye(3)[of_class]
    expected = sk.cohen_kappa_score(of_class[labels], summed.argmax(axis=1), weights="quadratic")
    metric, answers = find_metric("quadratic_kappa-age"), Answers.of(labels, probabilities)
    assert metric.value(answers, own_space) == pytest.approx(expected)
    scored = score(labels, probabilities, own_space)["factors"]["age"]
    assert scored["quadratic_kappa"] == pytest.approx(expected)
    values = [sk.roc_auc_score(of_class[labels] == level, summed[:, level]) for level in range(3)]
    assert scored["roc_auc"] == pytest.approx(np.mean(values))
    assert np.isnan(metric.value(answers, space(6)))
    assert np.isfinite(metric_draws({"": answers}, groups, own_space, metric, 30, 0)[""]).all()


# --- names, and a metric of the user's own


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rocauc", "no metric 'rocauc'; did you mean 'roc_auc'"),
        ("f_beta", "f_beta needs a beta after a dash, such as f_beta-2"),
        ("top_k-0", "such as top_k-3"),
        ("roc_auc_partial-1.5", "such as roc_auc_partial-0.1"),
        ("mcc-2", "mcc has no parameter"),
        ("folder/roc_auc.py", "have a roc_auc of their own"),
        ("my metric.py", "letters, digits and _"),
    ],
)
def test_a_wrong_name_is_told(name, told):
    with pytest.raises(UserError, match=told):
        find_metric(name)


def test_every_known_name_has_a_metric():
    examples = {"beta": "-2", "k": "-3", "share": "-0.1"}
    for base, kind in PARAMETERS.items():
        assert find_metric(base + examples.get(kind, "")).name.startswith(base)


OWN = """
import numpy as np

def _helper(labels, answers):
    return np.mean(labels == answers)

def share_right(labels, probabilities, names):
    assert len(names) == probabilities.shape[1]
    return _helper(labels, probabilities.argmax(axis=1))
"""


def test_a_metric_of_ones_own_is_called_with_labels_probabilities_and_names(tmp_path):
    (tmp_path / "my_metric.py").write_text(OWN, encoding="utf-8")
    metric = find_metric("some/my_metric.py", tmp_path / "my_metric.py")
    labels, probabilities, groups = drawn(7)
    answers = Answers.of(labels, probabilities)
    assert metric.name == "my_metric"
    found = score_rows({"": answers}, groups, space(4), [metric], 500, seed=1)[""]
    assert found.points["my_metric"] == found.points["accuracy"]
    assert len(found.draws["my_metric"]) == 100
    np.testing.assert_allclose(found.draws["my_metric"], found.draws["accuracy"][:100], atol=1e-12)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = (", "cannot be run: SyntaxError"),
        ("def a(l, p, n): return 1\ndef b(l, p, n): return 1", "found a, b"),
        ("x = 1", "found none"),
        ("def a(labels): return 1", "failed: TypeError"),
        ("def a(l, p, n): return 'good'", "returned str"),
        ("def a(l, p, n): return float('nan')", "no finite number"),
        ("def a(l, p, n): 1 / 0", "failed: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_ones_own_metric_is_told_in_a_line(tmp_path, text, told):
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=told) as error:
        try_own_metric(path)
    assert len(error.value.faults) == 1 and "\n" not in str(error.value)
