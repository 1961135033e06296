"""Logits of packed images: those of the network, whatever the batches and views, and in whatever memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from foldvote.data.packed_images import PackedImages
from foldvote.errors import UserError
from foldvote.inference import forward
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import ready_views
from foldvote.models.factory import build_model, normalisation
from foldvote.runtime import device as device_module
from foldvote.runtime.device import Device
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny, recipe

CPU = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    net = build_model(recipe(), LABEL_SPACE, 1)
    with torch.no_grad():
        for _ in range(3):  # running means of its own, so that training mode would show
            net(torch.randn(16, 3, 32, 24))
    return net


def direct(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Logits of uint8 images in one batch, without the library's batches."""
    mean, std = normalisation(model, CPU.torch_device)
    with torch.inference_mode():
        return model.eval()((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()


@pytest.mark.parametrize("batch_size", [1, 7, 48, 1000])
def test_predictions_are_the_nets_own_whatever_the_batches(tiny: Tiny, model: torch.nn.Module, batch_size: int) -> None:
    packed = PackedImages(tiny.pixels)
    rows = np.random.default_rng(0).permutation(len(packed))[:41]
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = []

    def track(batches: object, total: int) -> object:
        told.append(total)
        return batches

    logits = predict_logits(
        model, packed, rows, ready_views(["identity", "hflip"], *packed.shape[:2]), CPU, batch_size, track
    )
    images = np.stack([packed[row] for row in rows])
    assert list(logits) == ["identity", "hflip"] and told == [-(-41 // batch_size)]
    for view, shown in (("identity", images), ("hflip", images[:, :, ::-1].copy())):
        assert logits[view].shape == (41, 3) and logits[view].dtype == np.float32
        np.testing.assert_allclose(logits[view], direct(model, shown), atol=1e-4)
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_f59_the_identity_view_alone_is_the_same_with_and_without_others(tiny: Tiny, model: torch.nn.Module) -> None:
    packed, rows = PackedImages(tiny.pixels), np.arange(20)
    alone = predict_logits(model, packed, rows, ready_views(["identity"], *packed.shape[:2]), CPU, 8)["identity"]
    both = predict_logits(model, packed, rows, ready_views(["hflip", "identity"], *packed.shape[:2]), CPU, 8)
    assert np.array_equal(alone, both["identity"]) and not np.array_equal(alone, both["hflip"])


def test_a_fault_while_gathering_is_raised_and_not_swallowed(tiny: Tiny, model: torch.nn.Module) -> None:
    with pytest.raises(IndexError):
        predict_logits(
            model,
            PackedImages(tiny.pixels),
            np.array([0, 1, 5000]),
            ready_views(["identity"], *PackedImages(tiny.pixels).shape[:2]),
            CPU,
            2,
        )


def test_images_are_channels_last_in_batches_that_fit_a_cpu_and_the_weights_stay_as_they_are(
    tiny: Tiny, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, rows = PackedImages(tiny.pixels), np.arange(40)
    monkeypatch.setattr(device_module, "_PIXELS_PER_THREAD", 5 * 32 * 24)
    views, layouts = ready_views(["identity", "hflip", "crop-centre-90"], *packed.shape[:2]), []
    strides = [tensor.stride() for tensor in model.parameters()]

    def look(_model: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        layouts.append((len(inputs[0]), inputs[0].is_contiguous(memory_format=torch.channels_last)))

    hook = model.register_forward_pre_hook(look)
    found = predict_logits(model, packed, rows, views, CPU, 16)
    hook.remove()
    assert layouts == [(4, True)] * 30  # 16, halved twice; 40 images under three views
    plain = replace(CPU, prediction_layout=torch.contiguous_format)
    monkeypatch.undo()
    for name, logits in predict_logits(model, packed, rows, views, plain, 16).items():
        np.testing.assert_allclose(found[name], logits, atol=1e-5)
    assert strides == [tensor.stride() for tensor in model.parameters()]


def real_cpu_error() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def error_of_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def error_of_cudnn() -> None:
    raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")


def error_of_numpy() -> None:
    np.empty(1 << 60, np.uint8)


@contextmanager
def room_for(model: torch.nn.Module, images: int, fail: Callable[[], None]) -> Iterator[list[int]]:
    """Within the block the network fails for want of memory at more images at once; gives the sizes of all batches."""
    sizes: list[int] = []

    def look(_model: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        sizes.append(len(inputs[0]))
        if sizes[-1] > images:
            fail()

    hook = model.register_forward_pre_hook(look)
    try:
        yield sizes
    finally:
        hook.remove()


@pytest.mark.parametrize("fail", [real_cpu_error, error_of_cuda, error_of_cudnn, error_of_numpy])
def test_predictions_that_do_not_fit_are_those_of_a_smaller_batch(
    tiny: Tiny, model: torch.nn.Module, fail: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    packed, rows = PackedImages(tiny.pixels), np.arange(41)
    views = ready_views(["identity", "hflip"], *packed.shape[:2])
    with room_for(model, 12, fail) as sizes:
        logits = predict_logits(model, packed, rows, views, CPU, 256)
    assert sizes[:3] == [41, 20, 10] and max(sizes[2:]) == 10
    smaller = predict_logits(model, packed, rows, views, CPU, 10)
    assert all(np.array_equal(logits[name], smaller[name]) for name in smaller)
    told = [line for line in capfd.readouterr().err.splitlines() if "memory" in line]
    assert len(told) == 2 and "runtime.predict_batch: 10" in told[-1]


def test_memory_that_fails_after_some_batches_leaves_no_mixture(tiny: Tiny, model: torch.nn.Module) -> None:
    packed, rows, calls = PackedImages(tiny.pixels), np.arange(40), [0]

    def another_process_takes_memory() -> None:
        calls[0] += 1
        if calls[0] == 3:
            error_of_cuda()

    views = ready_views(["identity"], *packed.shape[:2])
    with room_for(model, 0, another_process_takes_memory) as sizes:
        logits = predict_logits(model, packed, rows, views, CPU, 8)["identity"]
    assert sizes == [8] * 3 + [4] * 10
    assert np.array_equal(logits, predict_logits(model, packed, rows, views, CPU, 4)["identity"])


def test_where_no_image_fits_the_error_names_what_would_help(tiny: Tiny, model: torch.nn.Module) -> None:
    packed = PackedImages(tiny.pixels)
    views = ready_views(["identity"], *packed.shape[:2])
    with (
        room_for(model, 0, error_of_cuda),
        pytest.raises(UserError, match=r"one image of 32x24.*models\.\*\.size") as told,
    ):
        predict_logits(model, packed, np.arange(9), views, CPU, 4)
    assert len(told.value.faults) == 1 and "CUDA out of memory" in told.value.faults[0]


def test_an_error_of_another_kind_is_not_tried_again(tiny: Tiny, model: torch.nn.Module) -> None:
    def fail() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    packed = PackedImages(tiny.pixels)
    with room_for(model, 0, fail) as sizes, pytest.raises(RuntimeError, match="mat1"):
        predict_logits(model, packed, np.arange(9), ready_views(["identity"], *packed.shape[:2]), CPU, 4)
    assert sizes == [4]


def test_logits_are_kept_on_the_device_only_up_to_a_bound(
    tiny: Tiny, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, rows = PackedImages(tiny.pixels), np.arange(41)
    views = ready_views(["identity", "hflip"], *packed.shape[:2])
    at_once = predict_logits(model, packed, rows, views, CPU, 4)
    moved: list[int] = []
    to_cpu = forward._to_cpu

    def look(waiting: dict[str, list[torch.Tensor]], done: dict[str, list[np.ndarray]]) -> None:
        moved.append(sum(logits.nbytes for parts in waiting.values() for logits in parts))
        to_cpu(waiting, done)

    monkeypatch.setattr(forward, "_to_cpu", look)
    monkeypatch.setattr(forward, "_KEPT_BYTES", 200)
    in_pieces = predict_logits(model, packed, rows, views, CPU, 4)
    assert len(moved) > 3 and max(moved) <= 200 + 2 * 4 * 3 * 4  # two views of four images, three classes of four bytes
    assert all(np.array_equal(at_once[name], in_pieces[name]) for name in at_once)
