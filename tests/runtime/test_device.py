"""The device: which one, which precision, which memory layout."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import timm
import torch

from foldvote.errors import UserError
from foldvote.runtime.device import Device, choose_device
from foldvote.runtime.distributed import ProcessGroup


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A monkeypatch, with torch's own settings put back afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield monkeypatch
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def pretend_gpu(patch: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str]) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    patch.setattr(torch.cuda, "get_arch_list", lambda: built)
    patch.setattr(torch.cuda, "get_device_name", lambda *_: "Imaginary P100")
    patch.setattr(torch.cuda, "device_count", lambda: 2)
    patch.setattr(torch.cuda, "set_device", lambda _: None)


WHEEL = ["sm_75", "sm_80", "sm_90a", "sm_120", "compute_120"]


@pytest.mark.parametrize(("capability", "built"), [((6, 0), WHEEL), ((7, 0), WHEEL), ((8, 0), ["sm_100f", "sm_120"])])
def test_f47_a_gpu_too_old_for_torch_is_refused_by_name(
    patch: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str]
) -> None:
    pretend_gpu(patch, capability, built)
    number = r"\.".join(map(str, capability))
    with pytest.raises(UserError, match=rf"Imaginary P100 \(compute {number}\) is too old for torch") as told:
        choose_device("auto", None, 1, 2)
    assert f"built for {'7.5' if built is WHEEL else '10.0'} and up" in str(told.value)
    assert "--resources gpu=0" in str(told.value)


@pytest.mark.parametrize(
    ("capability", "precision", "dtype"),
    [
        ((7, 5), "auto", torch.float16),
        ((8, 0), "auto", torch.bfloat16),
        ((9, 0), "auto", torch.bfloat16),
        ((12, 1), "auto", torch.bfloat16),
        ((9, 0), "fp32", torch.float32),
        ((9, 0), "fp16", torch.float16),
    ],
)
def test_a_gpu_gets_the_precision_it_does_well(
    patch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str, dtype: torch.dtype
) -> None:
    pretend_gpu(patch, capability, WHEEL)
    device = choose_device(precision, None, 1, 2)
    assert (device.torch_device, device.dtype) == (torch.device("cuda", 0), dtype)
    assert device.layout == torch.channels_last and device.name == "Imaginary P100"
    assert choose_device("auto", False, 1, 2).layout == torch.contiguous_format


def test_each_process_of_a_group_has_a_gpu_of_its_own(patch: pytest.MonkeyPatch) -> None:
    pretend_gpu(patch, (8, 0), WHEEL)
    devices = [choose_device("auto", None, 2, 2, rank) for rank in (0, 1)]
    assert [device.torch_device for device in devices] == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert replace(devices[1], group=ProcessGroup(1, 2)).name == "2 x Imaginary P100"
    with pytest.raises(UserError, match="GPU 3 of those that were granted is not there: torch sees 2; ask for"):
        choose_device("auto", None, 3, 2, 2)


def test_f47_a_granted_gpu_that_is_not_there_is_told_and_the_cpu_used(
    patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: False)
    device = choose_device("auto", None, 1, 2)
    assert device.torch_device.type == "cpu" and device.name == "CPU" and device.dtype == torch.float32
    assert "warning: a GPU was granted, but torch can use none" in capsys.readouterr().err


def test_a_job_without_a_granted_gpu_leaves_the_gpus_alone(
    patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked() -> None:
        raise AssertionError("asked for a GPU")

    patch.setattr(torch.cuda, "is_available", asked)
    device = choose_device("auto", None, 0, 1)
    assert device.torch_device.type == "cpu" and device.layout == torch.contiguous_format
    assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
    assert choose_device("auto", True, 0, 2).layout == torch.channels_last
    assert choose_device("bf16", None, 0, 2).dtype == torch.bfloat16
    with pytest.raises(UserError, match="precision: fp16 needs a GPU"):
        choose_device("fp16", None, 0, 2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_are_normalised_on_the_device(layout: torch.memory_format) -> None:
    device = Device(torch.device("cpu"), torch.float32, layout)
    batch = torch.randint(0, 256, (2, 5, 4, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1), torch.tensor([0.5, 1.0, 2.0]).view(1, 3, 1, 1)
    images = device.normalise(batch, mean, std)
    assert images.shape == (2, 3, 5, 4) and images.dtype == torch.float32 and images.is_contiguous(memory_format=layout)
    wanted = (batch.double() / 255 - mean.double().view(3)) / std.double().view(3)
    assert torch.allclose(images.permute(0, 2, 3, 1).double(), wanted, atol=1e-6)
    assert batch.dtype == torch.uint8 and batch.max() > 1
    assert not device.scaler().is_enabled()
    model = device.place(torch.nn.Conv2d(3, 4, 3))
    assert model.weight.is_contiguous(memory_format=layout)


def test_weights_of_other_than_four_dimensions_keep_their_layout_beside_channels_last() -> None:
    torch.manual_seed(1)
    model = timm.create_model("lambda_resnet26t", num_classes=3, pretrained=False).eval()
    images = torch.full((1, 64, 64, 3), 99, dtype=torch.uint8)
    mean, std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    given, logits = {name: tensor.clone() for name, tensor in model.state_dict().items()}, []
    for layout in (torch.contiguous_format, torch.channels_last):
        device = Device(torch.device("cpu"), torch.float32, layout)
        device.place(model)
        with torch.no_grad():
            logits.append(model(device.normalise(images, mean, std)))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-3, atol=1e-4)
    assert next(tensor for tensor in model.parameters() if tensor.dim() == 4).is_contiguous(
        memory_format=torch.channels_last
    )
    assert any(tensor.dim() == 5 for tensor in model.state_dict().values())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in given.items())
