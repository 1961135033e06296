"""A finished run as ONNX files answers as the run does."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from foldvote.config.image_size import Framing
from foldvote.config.runtime import Runtime
from foldvote.data.label_space import known_classes
from foldvote.data.packed_images import PackedImages
from foldvote.deployment import onnx_graph
from foldvote.deployment.finished_run import FinishedRun, read_finished_run
from foldvote.deployment.graph_builder import BATCH, Graph
from foldvote.deployment.network_graph import add_views, check_answers, export_network, session, with_weights
from foldvote.deployment.network_precision import Precision
from foldvote.deployment.onnx_graph import GraphFile, export_refusals, restricted, write_graphs
from foldvote.errors import UserError
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import move_of, views_of
from foldvote.runtime.resources import JobResources
from support.deployed_run import deployed_run

SQUARE = {"model": {"size": "32x32", "heads": {"mask": "classes", "age": "ordinal"}}}
TURNS = ["crop-top-left-90", "crop-centre-70", "hflip", "identity", "rot180", "rot270", "rot90", "vflip"]
SIZES = {"age": {"factors": ["age"]}, "mask": {"factors": ["mask"], "size": "32x32", "fit": "pad", "pack": 1.25}}
CROPS = ["crop-bottom-right-90", "hflip", "identity"]
Pixels = dict[Framing, npt.NDArray[np.uint8]]


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """One model with an ordinal head, under every kind of view."""
    return read_finished_run(deployed_run(tmp_path_factory.mktemp("square"), SQUARE, "geometric", TURNS).results)


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Models of one factor each, which see images of two sizes."""
    made = deployed_run(tmp_path_factory.mktemp("sizes"), SIZES, "greedy+offsets", CROPS, calibration="vector")
    return read_finished_run(made.results)


def _pixels(run: FinishedRun) -> Pixels:
    """The test images as the models see them."""
    found = {}
    for framing in run.inputs:
        images = PackedImages(run.results / f"data/pixels/{framing.folder}/test.arrow")
        found[framing] = np.stack([images[row] for row in range(len(images))])
    return found


def _expected(run: FinishedRun) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.integer]]:
    """The vote by the workflow's own networks and views."""
    logits = {}
    for model, fold in run.members:
        recipe = run.recipes[model]
        images = PackedImages(run.results / f"data/pixels/{recipe.packed.folder}/test.arrow")
        network, device = run.load((model, fold)), JobResources(0, 1, Runtime()).device(recipe)
        rows, views = np.arange(len(images)), views_of(recipe, run.views)
        own = predict_logits(device.place(network), images, rows, views, device, 256)
        codes = known_classes(recipe, run.label_space)[1]
        logits[model, fold] = {view: values[:, codes] for view, values in own.items()}
    return run.vote(logits)


def _answers(
    files: list[GraphFile], pixels: Mapping[Framing, npt.NDArray[np.uint8]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """What the files answer to images."""
    means = {}
    for file in files:
        feeds = {"images": pixels[file.framing]} if file.framing else means
        answers = session(file.path).run(list(file.outputs), feeds)
        if file.outputs == ("probabilities", "codes"):
            return answers[0], answers[1]
        means[file.path.stem] = answers[0]
    raise AssertionError("no file votes")


@pytest.mark.parametrize(("name", "written"), [("square", 1), ("sizes", 3)])
def test_files_answer_as_the_run_does_in_batches_of_any_size(
    name: str, written: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name)
    probabilities, codes = _expected(run)
    files, pixels = write_graphs(run, tmp_path), _pixels(run)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(file.path.name for file in files)
    assert len(files) == written
    for size in (12, 1, 2, 5):
        found, chosen = _answers(files, {key: images[:size] for key, images in pixels.items()})
        assert found.dtype == np.float32
        assert np.abs(found - probabilities[:size]).max() < 1e-6
        assert chosen.tolist() == codes[:size].tolist()
    assert len(set(codes.tolist())) > 2


def test_a_run_of_some_folds_and_views(square: FinishedRun, tmp_path: Path) -> None:
    run = restricted(square, [1], ["hflip", "crop-centre-70"])
    assert run.members == [("model", 1)]
    assert run.params["weights"] == {"model/crop-centre-70": 0.5, "model/hflip": 0.5}
    assert run.least is None
    assert square.least is not None
    found, codes = _answers(write_graphs(run, tmp_path), _pixels(run))
    probabilities, chosen = _expected(run)
    assert np.abs(found - probabilities).max() < 1e-6
    assert codes.tolist() == chosen.tolist()
    assert np.abs(probabilities - _expected(square)[0]).max() > 1e-3


def test_weights_too_large_for_one_file_lie_beside_it(
    square: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "_LARGEST", 100_000)
    run = restricted(square, [0], ["identity"])
    for _ in range(2):  # a second time the weights replace the first ones
        (file,) = write_graphs(run, tmp_path)
        assert file.data == tmp_path / "32x32-none.data"
        assert sorted(tmp_path.iterdir()) == sorted([file.path, file.data])
        assert file.path.stat().st_size < 100_000 < file.data.stat().st_size < 3_000_000
    found, _ = _answers([file], _pixels(run))
    assert np.abs(found - _expected(run)[0]).max() < 1e-6


@pytest.mark.parametrize("shape", [(32, 32), (40, 40), (33, 33), (64, 64)])
def test_views_of_images_that_are_packed_larger_are_those_of_the_run(shape: tuple[int, int]) -> None:
    images, seen = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1)), (32, 32)
    graph = Graph()
    given = graph.input("images", np.float32, [BATCH, 3, *shape])
    graph.output("views", add_views(graph, given, TURNS, shape, seen), np.float32, [BATCH, 3, *seen])
    (found,) = session(graph.model().SerializeToString()).run(["views"], {"images": images.numpy()})
    expected = torch.cat([move_of(name, None if shape == seen else seen)(images) for name in TURNS])
    assert found.shape == (2 * len(TURNS), 3, 32, 32)
    np.testing.assert_allclose(found, expected.numpy(), atol=3e-5)  # bilinear crops of the two differ by 2e-5


def test_a_run_of_all_folds_and_views_is_the_run(square: FinishedRun) -> None:
    assert restricted(square, [1, 0], list(reversed(TURNS))) is square
    assert restricted(square, None, None) is square


def test_what_a_vote_keeps_of_some_views(sizes: FinishedRun) -> None:
    names = [f"age*mask/{view}" for view in CROPS]
    factors = {
        "age": dict(zip(names, (0.5, 0.2, 0.3), strict=True)),
        "mask": dict(zip(names, (0, 0.5, 0.5), strict=True)),
    }
    params = {"kind": "factor_weights", "candidates": names, "factors": factors}
    kept = restricted(replace(sizes, params=params), None, ["hflip", "identity"]).params
    assert kept["candidates"] == names[1:]
    assert kept["factors"]["age"] == pytest.approx({names[1]: 0.4, names[2]: 0.6})
    assert kept["factors"]["mask"] == {names[1]: 0.5, names[2]: 0.5}
    params = {"kind": "tempered", "candidates": names, "temperatures": dict(zip(names, (1.0, 2.0, 3.0), strict=True))}
    kept = restricted(replace(sizes, params=params), None, ["identity"]).params
    assert kept["temperatures"] == {names[2]: 3.0}


@pytest.mark.parametrize(
    ("folds", "views", "lines"),
    [
        (
            [0, 7],
            ["mirror"],
            ["folds: no fold 7; the run has [0, 1]", "views: no view mirror; the run has crop-bottom"],
        ),
        ([], None, ["folds: model age has none of these folds; it has [0, 1]", "folds: model mask has none"]),
        (None, [], ["views: none is named"]),
    ],
)
def test_folds_and_views_that_are_not_there(sizes: FinishedRun, folds: list, views: list, lines: list) -> None:
    with pytest.raises(UserError) as caught:
        restricted(sizes, folds, views)
    assert len(caught.value.faults) == len(lines)
    assert all(fault.startswith(line) for fault, line in zip(caught.value.faults, lines, strict=True))


@pytest.mark.parametrize("kind", ["stacking", "rank", "stacking+offsets"])
def test_a_vote_that_needs_every_view_is_named(sizes: FinishedRun, kind: str) -> None:
    run = replace(sizes, params={"kind": kind, "candidates": []})
    with pytest.raises(UserError, match=rf"views: the vote {kind.partition('+')[0]} was fitted on all views"):
        restricted(run, None, ["identity"])
    assert restricted(run, [0], None).params == run.params


def test_weights_of_nothing_but_other_views(sizes: FinishedRun) -> None:
    names = [f"age*mask/{view}" for view in CROPS]
    params = {"kind": "greedy", "candidates": names, "weights": dict(zip(names, (1.0, 0.0, 0.0), strict=True))}
    with pytest.raises(UserError, match="views: the vote greedy gives no weight to hflip, identity"):
        restricted(replace(sizes, params=params), None, ["identity", "hflip"])


def test_what_has_no_onnx_form_is_named_before_any_network_is_loaded(sizes: FinishedRun, tmp_path: Path) -> None:
    gamma = {"name": "gamma", "steps": [{"RandomGamma": {}}]}
    run = replace(sizes, params={"kind": "lightgbm+offsets", "candidates": []}, views=["identity", gamma])
    refusals = export_refusals(run)
    assert len(refusals) == 2
    assert refusals[0].startswith("vote: lightgbm has no ONNX form")
    assert refusals[1].startswith("predict.views: gamma: its steps change pixels")
    with pytest.raises(UserError) as caught:
        write_graphs(replace(run, results=tmp_path), tmp_path)
    assert list(caught.value.faults) == refusals
    assert export_refusals(sizes) == []


class _Branching(torch.nn.Module):
    """Its layers depend on the values of the images, as those of no graph do."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :4] if images.sum() > 0 else images.flatten(1)[:, 4:8]


def test_a_network_that_cannot_be_exported_is_named() -> None:
    with pytest.raises(UserError, match="model odd, fold 0: its network cannot be written as ONNX"):
        export_network("model odd, fold 0", _Branching(), 8, 8)


def test_an_export_with_other_answers_is_refused() -> None:
    networks = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)) for _ in range(2)]
    model = export_network("first", networks[0], 8, 8)
    check_answers("first", networks[0], model, 8, 8)
    check_answers("second", networks[1], with_weights(model, networks[1]), 8, 8)
    with pytest.raises(UserError, match="second: its network answers otherwise as ONNX"):
        check_answers("second", networks[1], model, 8, 8)


@pytest.mark.parametrize(("precision", "bytes_kept", "away"), [("fp16", 0.7, 0.01), ("int8", 0.7, 0.2)])
def test_lower_precisions_are_smaller_and_near(
    square: FinishedRun, precision: Precision, bytes_kept: float, away: float, tmp_path: Path
) -> None:
    run, pixels = restricted(square, [0], ["hflip", "identity"]), _pixels(square)
    full = write_graphs(run, tmp_path)
    probabilities, codes = _answers(full, pixels)
    size = full[0].path.stat().st_size
    files = write_graphs(run, tmp_path, precision, pixels)
    found, chosen = _answers(files, pixels)
    assert files[0].path.stat().st_size < bytes_kept * size
    assert 0 < np.abs(found - probabilities).max() < away
    assert (chosen == codes).mean() >= 0.9
    alone = [_answers(files, {key: images[row : row + 1] for key, images in pixels.items()})[0] for row in range(12)]
    np.testing.assert_allclose(np.concatenate(alone), found, atol=1e-6)


def test_int8_without_images_is_refused(square: FinishedRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="precision: int8 needs images"):
        write_graphs(square, tmp_path, "int8")
