"""Logits of packed images: those of the network, whatever the batches and views."""

import numpy as np
import pytest
import torch

from foldvote.data.packed_images import PackedImages
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import ready_views
from foldvote.models.factory import build_model, normalisation
from foldvote.runtime.device import Device
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny, recipe

CPU = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)
pytestmark = pytest.mark.usefixtures("one_thread")


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
