"""Heads in the place of a timm net's classifier: their distributions, their place, and what they refuse."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional

from foldvote.data.label_space import LabelSpace, factor_label_space
from foldvote.errors import UserError
from foldvote.models.factory import build_model, head_parameters
from foldvote.models.heads import AgeRegression, FactoredHead, JointHead, Ordinal, make_head
from foldvote.models.pretrained import extract_lite
from support.tiny_member import LABEL_SPACE, recipe

AGES = ("under30", "30to59", "60plus")
HOME = factor_label_space({"mask": ("wear", "incorrect", "not-wear"), "gender": ("male", "female"), "age": AGES})
BORDERS = (30, 60)
BANDS = {"age": BORDERS}
KINDS = [
    "factored",
    {"age": "ordinal"},
    {"age": "regression"},
    {"mask": "ordinal", "gender": "ordinal", "age": "regression"},
]
FEATURES = 16
NET = "tf_efficientnet_lite0"


def home_head(heads: str | dict, seed: int = 1, **changes: object) -> FactoredHead:
    torch.manual_seed(seed)
    head = make_head(recipe(heads=heads, **changes), HOME, FEATURES, BANDS)
    assert isinstance(head, FactoredHead)
    return head.eval()


def features(count: int, scale: float, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, FEATURES)).astype("float32")) * scale


# --- distributions


@pytest.mark.parametrize("heads", KINDS)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.0, 0.1, 1.0, 10.0, 1e3]))
@settings(max_examples=15, deadline=None)
def test_the_logits_are_probabilities_of_all_classes(heads: str | dict, seed: int, scale: float) -> None:
    head = home_head(heads, seed)
    logits = head(features(5, scale, seed))
    assert logits.shape == (5, 18) and logits.dtype == torch.float32
    torch.testing.assert_close(logits.double().exp().sum(dim=1), torch.ones(5).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("heads", KINDS)
def test_cross_entropy_of_the_classes_is_the_sum_of_the_factors(heads: str | dict) -> None:
    head, x, labels = home_head(heads), features(36, 1.0), torch.arange(36) % 18
    of_factors = [
        functional.nll_loss(logs, torch.from_numpy(HOME.level_codes(name))[labels])
        for name, logs in zip(HOME.factors, head.factor_logs(x), strict=True)
    ]
    torch.testing.assert_close(functional.cross_entropy(head(x), labels), sum(of_factors))


@pytest.mark.parametrize("heads", KINDS)
@pytest.mark.parametrize("scale", [1e4, 1e12, 1e25])
def test_extreme_features_give_finite_logits_and_gradients(heads: str | dict, scale: float) -> None:
    head, x = home_head(heads), features(18, scale).requires_grad_()
    logits = head(x)
    assert torch.isfinite(logits).all()
    (functional.cross_entropy(logits, torch.arange(18)) / scale).backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in (x, *head.parameters()))


@given(st.lists(st.floats(-200, 200), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_thresholds_stay_in_order_whatever_was_learnt(cuts: list[float]) -> None:
    ordinal = Ordinal(len(cuts) + 1)
    with torch.no_grad():
        ordinal.cuts.copy_(torch.tensor(cuts))
    thresholds, gaps = ordinal.thresholds()
    assert (gaps > 0).all() and (thresholds.diff() >= 0).all() and thresholds.shape == (len(cuts),)
    logs = ordinal(torch.linspace(-300, 300, 13)[:, None])
    assert torch.isfinite(logs).all()
    torch.testing.assert_close(logs.double().exp().sum(dim=1), torch.ones(13).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("levels", [2, 3, 7])
def test_a_higher_score_never_makes_a_lower_level_likelier(levels: int) -> None:
    ordinal = Ordinal(levels)
    torch.testing.assert_close(ordinal(torch.zeros(1, 1)).exp(), torch.full((1, levels), 1 / levels))
    at_most = ordinal(torch.linspace(-8, 8, 50)[:, None]).double().exp().cumsum(dim=1)
    assert (at_most.diff(dim=0)[:, :-1] < 0).all()
    assert ordinal(torch.tensor([[-20.0], [20.0]])).argmax(dim=1).tolist() == [0, levels - 1]


def test_level_probabilities_are_differences_of_sigmoids() -> None:
    ordinal, scores = Ordinal(4), torch.linspace(-3, 3, 9).double()
    below = (ordinal.thresholds()[0].double() - scores[:, None]).sigmoid()
    wanted = torch.cat([torch.zeros(9, 1), below, torch.ones(9, 1)], dim=1).diff(dim=1)
    torch.testing.assert_close(ordinal(scores[:, None].float()).double().exp(), wanted, atol=1e-6, rtol=1e-5)


def test_a_regression_is_in_years_and_scored_by_bands() -> None:
    regression = AgeRegression(BORDERS)
    scores = torch.tensor([[-1.0], [-0.5], [0.25], [1.0], [2.0]])
    assert regression.years(scores).flatten().tolist() == [20, 30, 45, 60, 80]
    chances = regression(scores).exp().detach()
    assert chances.argmax(dim=1)[[0, 2, 4]].tolist() == [0, 1, 2]
    assert chances[1, 0] == pytest.approx(0.5) and chances[3, 2] == pytest.approx(0.5), "half at each border"
    assert chances[2, 1] == pytest.approx(1 - 2 / (1 + np.exp(15 / 5)), abs=1e-6), "logistic with a scale of 5 years"


@pytest.mark.parametrize("log_scale", [-60.0, -3.0, 8.0, 60.0])
def test_any_learnt_spread_stays_finite(log_scale: float) -> None:
    regression = AgeRegression(BORDERS)
    with torch.no_grad():
        regression.log_scale.fill_(log_scale)
    logs = regression(torch.linspace(-5, 5, 21)[:, None])
    logs.sum().backward()
    assert torch.isfinite(logs).all() and torch.isfinite(regression.log_scale.grad).all()


def test_a_regression_learns_the_order_of_ages_from_bands_alone() -> None:
    draws = np.random.default_rng(1)
    age = draws.uniform(10, 90, 300)
    x = torch.from_numpy(np.stack([age / 50 - 1, *draws.normal(size=(FEATURES - 1, 300))], axis=1).astype("float32"))
    labels = torch.from_numpy(np.searchsorted(BORDERS, age, side="right"))
    torch.manual_seed(1)
    head = make_head(recipe(heads={"age": "regression"}), factor_label_space({"age": AGES}), FEATURES, BANDS)
    head.eval()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(250):
        optimizer.zero_grad()
        functional.cross_entropy(head(x), labels).backward()
        optimizer.step()
    years = head.distributions[0].years(head.scores(x)).detach().flatten().numpy()
    assert np.corrcoef(years, age)[0, 1] > 0.9 and (head(x).argmax(dim=1) == labels).float().mean() > 0.9


def test_under_autocast_heads_still_compute_in_float32() -> None:
    for heads in KINDS:
        head, x = home_head(heads), features(4, 1.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(head(x), head(x.clone())) and head(x).dtype == torch.float32
            inside = head(x.bfloat16())
        assert torch.equal(inside, head(x.bfloat16().float()))


# --- dropout


@pytest.mark.parametrize(("heads", "samples"), [("joint", 4), ("factored", 1), ({"age": "ordinal"}, 4)])
def test_dropout_is_drawn_in_training_and_absent_in_eval(heads: str | dict, samples: int) -> None:
    torch.manual_seed(1)
    head = make_head(recipe(heads=heads, drop_rate=0.5, dropout_samples=samples), HOME, FEATURES, BANDS)
    without = make_head(recipe(heads=heads, drop_rate=0.0), HOME, FEATURES, BANDS)
    x = features(3, 1.0)
    torch.manual_seed(2)
    first, second = head(x), head(x)
    torch.manual_seed(2)
    assert torch.equal(head(x), first) and not torch.equal(first, second)
    head.eval()
    assert torch.equal(head(x), head(x)) and not torch.equal(head(x), first)
    if without is not None:
        without.load_state_dict(head.state_dict())
        assert torch.equal(without.train()(x), head(x)), "no rate, no draw"


def test_the_samples_outputs_are_averaged() -> None:
    head = JointHead(FEATURES, 3, 0.5, 3)
    x = features(4, 1.0)
    torch.manual_seed(5)
    wanted = torch.stack([head.linear(functional.dropout(x, 0.5)) for _ in range(3)]).mean(dim=0)
    torch.manual_seed(5)
    torch.testing.assert_close(head(x), wanted)


# --- in the place of a net's classifier


@pytest.mark.parametrize(
    ("net", "prefix"), [("test_resnet", "fc."), ("test_vit", "head."), ("test_convnext", "head.fc.")]
)
@pytest.mark.parametrize("heads", ["factored", "joint"])
def test_a_head_takes_the_classifiers_place_and_name(net: str, prefix: str, heads: str) -> None:
    settings = recipe(net=net, heads=heads, dropout_samples=2, size="32x32")
    model = build_model(settings, HOME, 1, bands=BANDS)
    names = head_parameters(model)
    assert names == {name for name in model.state_dict() if name.startswith(prefix) and "norm" not in name}
    assert len(names) >= 2 and model(torch.zeros(2, 3, 32, 32)).shape == (2, 18) and model.training
    groups = model.group_matcher(coarse=False)
    from timm.models import group_parameters

    layers = group_parameters(model, groups, reverse=True)
    assert all(layers[name] == max(layers.values()) for name in names), "the head is the last layer"


def test_equal_seeds_draw_equal_heads_whatever_came_before() -> None:
    settings = recipe(heads={"age": "ordinal"})
    first = build_model(settings, HOME, 1).state_dict()
    torch.manual_seed(99)
    again, other = (build_model(settings, HOME, seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc.scores.linear.weight"], other["fc.scores.linear.weight"])
    joint = build_model(recipe(), HOME, 1).state_dict()
    assert all(torch.equal(first[name], joint[name]) for name in joint if not name.startswith("fc."))


def test_weights_go_through_safetensors_and_back(tmp_path: Path) -> None:
    settings = recipe(heads={"mask": "ordinal", "gender": "ordinal", "age": "regression"})
    model = build_model(settings, HOME, 1, bands=BANDS).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    other = build_model(settings, HOME, 2, bands=BANDS).eval()
    x = torch.rand(2, 3, 32, 24)
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)
    assert torch.equal(other(x), model(x))
    assert not [name for name in model.state_dict() if "level_of_class" in name or "borders" in name]


def test_a_factored_head_loads_with_pretrained_weights(tmp_path: Path) -> None:
    path = tmp_path / "lite0.safetensors"
    extract_lite(NET, path)
    settings = recipe(net=NET, size="64x64", heads="factored")
    model, given_ = build_model(settings, HOME, 1, path), load_file(path)
    state = model.state_dict()
    backbone = [name for name in given_ if not name.startswith("classifier")]
    assert len(backbone) > 290 and all(torch.equal(state[name], given_[name]) for name in backbone)
    assert head_parameters(model) == {"classifier.scores.linear.weight", "classifier.scores.linear.bias"}
    assert state["classifier.scores.linear.weight"].shape == (8, 1280)
    assert torch.equal(
        state["classifier.scores.linear.weight"],
        build_model(settings, HOME, 1).state_dict()["classifier.scores.linear.weight"],
    )


def test_timms_own_dropout_is_off_where_the_head_drops_out() -> None:
    plain = build_model(recipe(drop_rate=0.5), HOME, 1)
    assert plain.drop_rate == 0.5 and isinstance(plain.fc, torch.nn.Linear)
    for changes in ({"heads": "factored"}, {"dropout_samples": 3}):
        assert build_model(recipe(drop_rate=0.5, **changes), HOME, 1).drop_rate == 0


def test_stochastic_depth_is_for_nets_that_have_it() -> None:
    model = build_model(recipe(net="test_vit", size="32x32", drop_path=0.3), LABEL_SPACE, 1)
    rates = [block.drop_path1.drop_prob for block in model.blocks if hasattr(block.drop_path1, "drop_prob")]
    assert max(rates) == pytest.approx(0.3)
    with pytest.raises(UserError, match="vgg11: has no stochastic depth; drop the recipe's drop_path"):
        build_model(recipe(net="vgg11", drop_path=0.1), LABEL_SPACE, 1)


def test_activations_are_computed_again_where_the_net_can() -> None:
    x, gradients = torch.rand(4, 3, 32, 24), []
    for again in (False, True):
        model = build_model(recipe(grad_checkpointing=again), LABEL_SPACE, 1)
        assert model.grad_checkpointing is again
        functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0])).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(torch.allclose(gradients[1][name], grad, atol=1e-6) for name, grad in gradients[0].items())
    with pytest.raises(
        UserError, match=r"dla46_c: cannot compute activations again .*drop the recipe's grad_checkpointing"
    ):
        build_model(recipe(net="dla46_c", size="64x64", grad_checkpointing=True), LABEL_SPACE, 1)


@pytest.mark.parametrize(
    ("heads", "label_space", "bands", "told"),
    [
        ("factored", LABEL_SPACE, None, "heads: factored: the classes are not made up of factors; use heads: joint"),
        ({"hat": "ordinal"}, HOME, BANDS, "heads: no factor hat; this model learns mask, gender, age"),
        ({"mask": "regression"}, HOME, BANDS, "heads.mask: regression is for the home task's age alone"),
        ({"age": "regression"}, HOME, None, "heads.age: regression is for the home task's age alone"),
        ({"age": "regression"}, HOME, {"age": (30, 45, 60)}, "heads.age: regression is for the home task's age alone"),
        ({"age": "regression"}, HOME, {"age": (60, 30)}, r"heads.age: the age borders \[60, 30\] do not rise"),
    ],
)
def test_heads_that_do_not_suit_the_classes_are_refused(
    heads: str | dict, label_space: LabelSpace, bands: dict | None, told: str
) -> None:
    with pytest.raises(UserError, match=told) as error:
        build_model(recipe(heads=heads), label_space, 1, bands=bands)
    assert len(error.value.faults) == 1 and "\n" not in str(error.value)


@pytest.mark.parametrize("net", ["resnetv2_50", "deit_tiny_distilled_patch16_224"])
def test_a_net_without_a_linear_classifier_keeps_its_own(net: str) -> None:
    told = f"{net}: this net's classifier is no linear layer; use heads: joint, dropout_samples: 1 and no metadata"
    with pytest.raises(UserError, match=told):
        build_model(recipe(net=net, size="32x32", heads="factored"), HOME, 1)
    names = head_parameters(build_model(recipe(net=net, size="32x32"), HOME, 1))
    assert names and all("head" in name for name in names)
