"""The device: which one, which precision, which memory layout."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import timm
import torch

from foldvote.errors import UserError
from foldvote.runtime import device as device_module
from foldvote.runtime.device import Device, choose_device, name_nondeterminism
from foldvote.runtime.distributed import ProcessGroup

FP32 = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A monkeypatch, with torch's own settings put back afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    precisions = [(operations, operations.fp32_precision) for operations in FP32]
    benchmark, attention = torch.backends.cudnn.benchmark, torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
    yield monkeypatch
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cuda.enable_cudnn_sdp(attention)
    for operations, precision in precisions:
        operations.fp32_precision = precision


def pretend_gpu(patch: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str]) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    patch.setattr(torch.cuda, "get_arch_list", lambda: built)
    patch.setattr(torch.cuda, "get_device_name", lambda *_: "Imaginary P100")
    patch.setattr(torch.cuda, "device_count", lambda: 2)
    patch.setattr(torch.cuda, "set_device", lambda _: None)
    patch.setattr(device_module, "_compute", lambda _: None)


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


def test_f47_a_granted_gpu_that_torch_cannot_use_is_an_error_and_no_run_on_the_cpu(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: False)
    patch.setenv("CUDA_VISIBLE_DEVICES", "GPU-12ab")
    with pytest.raises(UserError, match="a GPU was granted, but torch can use none") as told:
        choose_device("auto", None, 1, 2)
    assert "CUDA_VISIBLE_DEVICES: GPU-12ab" in str(told.value) and "--resources gpu=0" in str(told.value)


def test_f47_a_gpu_that_refuses_to_compute_is_named(patch: pytest.MonkeyPatch) -> None:
    def busy(_device: torch.device) -> None:
        raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors might be")

    pretend_gpu(patch, (8, 0), WHEEL)
    patch.setattr(device_module, "_compute", busy)
    with pytest.raises(
        UserError, match=r"Imaginary P100 was granted, but cannot be used \(CUDA error: .* unavailable\)"
    ):
        choose_device("auto", None, 1, 2)


def switches() -> dict[str, object]:
    return {
        "enforced": torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "fp32": {operations.fp32_precision for operations in FP32},
        "cudnn attention": torch.backends.cuda.cudnn_sdp_enabled(),
        "fills": torch.utils.deterministic.fill_uninitialized_memory,
        "cublas": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def test_reproducible_is_enforced_on_a_gpu_and_fast_is_fast(
    patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_gpu(patch, (8, 0), WHEEL)
    patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")  # with which cuBLAS is not deterministic
    assert choose_device("fp32", None, 1, 2).reproducible
    exact = {"enforced": True, "benchmark": False, "fp32": {"ieee"}, "cudnn attention": False, "fills": False}
    assert switches() == exact | {"cublas": ":4096:8"}
    assert "reproducible" not in capsys.readouterr().err
    assert not choose_device("fp32", None, 1, 2, reproducible=False).reproducible
    fast = {"enforced": False, "benchmark": True, "fp32": {"tf32"}, "cudnn attention": True, "fills": False}
    assert switches() == fast | {"cublas": ":4096:8"}
    assert "runtime.reproducible: false" in capsys.readouterr().err
    assert choose_device("fp32", None, 1, 2).reproducible  # and back
    assert switches() == exact | {"cublas": ":4096:8"}


def test_a_cpu_is_always_reproducible_and_knows_one_setting(patch: pytest.MonkeyPatch) -> None:
    before = {operations.fp32_precision for operations in FP32}
    assert choose_device("fp32", None, 0, 1).reproducible
    exact = switches()
    assert choose_device("fp32", None, 0, 1, reproducible=False).reproducible
    assert switches() == exact and exact["fp32"] == before and not exact["fills"] and not exact["enforced"]
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'.",
            "adaptive_avg_pool2d_backward_cuda",
        ),
        (
            "Deterministic behavior is on, but this operation is not deterministic because it uses CuBLAS",
            "CuBLAS",
        ),
    ],
)
def test_an_operation_without_a_deterministic_form_is_named_with_the_key_to_set(text: str, named: str) -> None:
    with pytest.raises(UserError) as told, name_nondeterminism():
        raise RuntimeError(text)
    assert str(told.value).startswith(f"{named} has no deterministic form on a GPU")
    assert "runtime.reproducible: false" in str(told.value) and "\n" not in str(told.value)
    with pytest.raises(RuntimeError, match="something else"), name_nondeterminism():
        raise RuntimeError("something else")


def test_torchs_own_refusal_is_recognised(patch: pytest.MonkeyPatch) -> None:
    torch.use_deterministic_algorithms(True)
    values, places = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.int64)
    with pytest.raises(UserError, match="max_unpool"), name_nondeterminism():
        torch.nn.functional.max_unpool2d(values, places, 2)


def test_a_job_without_a_granted_gpu_leaves_the_gpus_alone(
    patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked() -> None:
        raise AssertionError("asked for a GPU")

    patch.setattr(torch.cuda, "is_available", asked)
    device = choose_device("auto", None, 0, 1)
    assert device.torch_device.type == "cpu" and device.layout == torch.contiguous_format
    assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
    assert device.prediction_layout == torch.channels_last
    assert choose_device("auto", True, 0, 2).layout == torch.channels_last
    assert choose_device("auto", False, 0, 2).prediction_layout == torch.contiguous_format
    assert choose_device("bf16", None, 0, 2).dtype == torch.bfloat16
    with pytest.raises(UserError, match="precision: fp16 needs a GPU"):
        choose_device("fp16", None, 0, 2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("largest", "size", "batch"),
    [(256, (128, 96), 32), (256, (224, 224), 8), (100, (128, 96), 25), (37, (512, 512), 37), (64, (64, 48), 64)],
)
def test_a_batch_of_predictions_on_a_cpu_divides_the_largest_one_and_grows_with_the_threads(
    largest: int, size: tuple[int, int], batch: int
) -> None:
    before = torch.get_num_threads()
    try:
        device = choose_device("auto", None, 0, 1)
        assert device.prediction_batch(largest, *size) == batch
        torch.set_num_threads(2)
        assert device.prediction_batch(largest, *size) == min(largest, 2 * batch)
    finally:
        torch.set_num_threads(before)
    assert replace(device, torch_device=torch.device("cuda")).prediction_batch(largest, *size) == largest


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
