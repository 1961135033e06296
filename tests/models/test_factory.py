"""Networks and what feeds them: nets, weights, devices, predictions, batches."""

import os
import pickle
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from foldvote.config.timm_names import net_names
from foldvote.data.label_space import LabelSpace
from foldvote.data.packed_images import PackedImages
from foldvote.errors import UserError
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import VIEWS, ready_views
from foldvote.models.factory import build_model, normalisation
from foldvote.models.pretrained import extract_lite
from foldvote.runtime.device import Device, choose_device
from foldvote.runtime.distributed import ProcessGroup
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.dataloader import AugmentedImages, Batch, EpochOrder, ResumableSampler, training_loader
from support.tiny_member import SCHEME, Tiny, make_tiny, recipe

NET = "tf_efficientnet_lite0"


CPU = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)


def classes(count: int) -> LabelSpace:
    return LabelSpace(tuple(f"class{number}" for number in range(count)))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks the network in these tests fails at once."""

    connect = socket.socket.connect

    def refused(*arguments: object, **_: object) -> None:
        raise AssertionError(f"asked the network: {arguments}")

    def connect_here(own: socket.socket, address: object) -> None:
        connect(own, address) if own.family == socket.AF_UNIX else refused(address)  # processes talk through files

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket, "create_connection", refused)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    extract_lite(NET, path)
    return path


def test_the_configuration_knows_all_nets_of_timm() -> None:
    assert set(timm.list_models()) <= net_names()


def test_equal_seeds_draw_equal_weights() -> None:
    first, again, other = (build_model(recipe(), SCHEME, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize(("net", "size"), [("test_vit", "48x32"), ("test_resnet", "48x32"), ("test_vit", "32x64")])
def test_nets_of_fixed_and_free_input_size_take_the_recipes_size(net: str, size: str) -> None:
    model = build_model(recipe(net=net, size=size), classes(7), 1)
    height, width = map(int, size.split("x"))
    logits = model(torch.zeros(2, 3, height, width))
    assert logits.shape == (2, 7) and model.training and logits.requires_grad


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"net": "test_vit", "size": "50x32"}, r"test_vit: cannot be made for images of 50x32 \(.*divisible"),
        ({"net": "resnet18.no_such_tag"}, r"resnet18\.no_such_tag: cannot be made .*no_such_tag"),
    ],
)
def test_a_net_that_cannot_be_made_is_refused_before_any_data(changes: dict, told: str) -> None:
    with pytest.raises(UserError, match=told) as refusal:
        build_model(recipe(**changes), SCHEME, 1)
    assert "correct the recipe's net or size" in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_try_on_a_black_image_leaves_no_trace() -> None:
    torch.manual_seed(1)
    plain = timm.create_model("test_resnet", pretrained=False, num_classes=3, drop_rate=0.1).state_dict()
    tried = build_model(recipe(), SCHEME, 1).state_dict()
    assert all(torch.equal(plain[name], tried[name]) for name in plain)


def test_f46_missing_weights_are_refused_without_asking_the_network(tmp_path: Path) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(UserError) as refusal:
            build_model(recipe(net="resnet18"), SCHEME, 1, path)
        assert refusal.value.faults == (
            f"{path}: no such weights file; correct the recipe's `pretrained`, or set it to null",
        )


def test_the_classifier_of_a_weights_file_is_not_used(tmp_path: Path) -> None:
    trained = build_model(recipe(), classes(5), 99)
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    model = build_model(recipe(), SCHEME, 1, tmp_path / "w.safetensors")
    first = next(iter(trained.state_dict()))
    assert torch.equal(model.state_dict()[first], trained.state_dict()[first])
    assert torch.equal(model.state_dict()["fc.weight"], build_model(recipe(), SCHEME, 1).state_dict()["fc.weight"])


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "model", "module."])
def test_weights_in_the_forms_that_people_save_are_read(tmp_path: Path, wrapped: str) -> None:
    state = build_model(recipe(), classes(5), 99).state_dict()
    content = {f"module.{name}": tensor for name, tensor in state.items()} if wrapped == "module." else state
    torch.save({wrapped: state} if wrapped in ("state_dict", "model") else content, tmp_path / "w.pth")
    model = build_model(recipe(), SCHEME, 1, tmp_path / "w.pth")
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state if not name.startswith("fc"))


@pytest.mark.parametrize(
    "lost", ["conv_stem.weight", "bn1.running_mean", "blocks.2.0.bn1.weight", "blocks.6.0.bn3.bias", "conv_head.weight"]
)
def test_weights_that_lack_a_tensor_are_refused(lite0: Path, tmp_path: Path, lost: str) -> None:
    state = load_file(lite0)
    del state[lost]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=f"lacks 1 of the 296 tensors of {NET}.*{lost}"):
        build_model(recipe(net=NET), SCHEME, 1, tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("net", "told"),
    [
        ("resnet10t", "does not load into resnet10t"),
        ("efficientnet_b0", "lacks 64 of the 360 tensors of efficientnet_b0"),
        ("test_resnet", "of test_resnet|into test_resnet"),
    ],
)
def test_weights_of_another_net_are_refused_with_the_nets_name(lite0: Path, net: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as refusal:
        build_model(recipe(net=net), SCHEME, 1, lite0)
    assert str(lite0) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"abc", b"\x80\x04.", b"PK\x03\x04"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_is_no_weights_file_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="does not load into test_resnet"):
        build_model(recipe(), SCHEME, 1, path)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
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
    machine: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str]
) -> None:
    pretend_gpu(machine, capability, built)
    number = r"\.".join(map(str, capability))
    with pytest.raises(UserError, match=rf"Imaginary P100 \(compute {number}\) is too old for torch") as told:
        choose_device(recipe(), 1, 2)
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
    machine: pytest.MonkeyPatch, capability: tuple[int, int], precision: str, dtype: torch.dtype
) -> None:
    pretend_gpu(machine, capability, WHEEL)
    compute = choose_device(recipe(precision=precision), 1, 2)
    assert (compute.device, compute.dtype) == (torch.device("cuda", 0), dtype)
    assert compute.layout == torch.channels_last and compute.name == "Imaginary P100"
    assert choose_device(recipe(channels_last=False), 1, 2).layout == torch.contiguous_format


def test_each_process_of_a_team_has_a_gpu_of_its_own(machine: pytest.MonkeyPatch) -> None:
    pretend_gpu(machine, (8, 0), WHEEL)
    computes = [choose_device(recipe(), 2, 2, rank) for rank in (0, 1)]
    assert [compute.device for compute in computes] == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert replace(computes[1], team=ProcessGroup(1, 2)).name == "2 x Imaginary P100"
    with pytest.raises(UserError, match="GPU 3 of those that were granted is not there: torch sees 2; ask for"):
        choose_device(recipe(), 3, 2, 2)


def test_f47_a_granted_gpu_that_is_not_there_is_told_and_the_cpu_used(
    machine: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: False)
    compute = choose_device(recipe(), 1, 2)
    assert compute.device.type == "cpu" and compute.name == "CPU" and compute.dtype == torch.float32
    assert "warning: a GPU was granted, but torch can use none" in capsys.readouterr().err


def test_a_job_without_a_granted_gpu_leaves_the_gpus_alone(
    machine: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked() -> None:
        raise AssertionError("asked for a GPU")

    machine.setattr(torch.cuda, "is_available", asked)
    compute = choose_device(recipe(), 0, 1)
    assert compute.device.type == "cpu" and compute.layout == torch.contiguous_format
    assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
    assert choose_device(recipe(channels_last=True), 0, 2).layout == torch.channels_last
    assert choose_device(recipe(precision="bf16"), 0, 2).dtype == torch.bfloat16
    with pytest.raises(UserError, match="precision: fp16 needs a GPU"):
        choose_device(recipe(precision="fp16"), 0, 2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_are_normalised_on_the_device(layout: torch.memory_format) -> None:
    compute = Device(torch.device("cpu"), torch.float32, layout)
    batch = torch.randint(0, 256, (2, 5, 4, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1), torch.tensor([0.5, 1.0, 2.0]).view(1, 3, 1, 1)
    images = compute.images(batch, mean, std)
    assert images.shape == (2, 3, 5, 4) and images.dtype == torch.float32 and images.is_contiguous(memory_format=layout)
    wanted = (batch.double() / 255 - mean.double().view(3)) / std.double().view(3)
    assert torch.allclose(images.permute(0, 2, 3, 1).double(), wanted, atol=1e-6)
    assert batch.dtype == torch.uint8 and batch.max() > 1
    assert not compute.scaler().is_enabled()
    model = compute.place(torch.nn.Conv2d(3, 4, 3))
    assert model.weight.is_contiguous(memory_format=layout)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    net = build_model(recipe(), SCHEME, 1)
    with torch.no_grad():
        for _ in range(3):  # running means of its own, so that training mode would show
            net(torch.randn(16, 3, 32, 24))
    return net


def direct(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Logits of uint8 images in one batch, without the library's batches."""
    mean, std = normalisation(model, CPU.device)
    with torch.inference_mode():
        return model.eval()((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()


@pytest.mark.parametrize("batch_size", [1, 7, 48, 1000])
def test_predictions_are_the_nets_own_whatever_the_batches(tiny: Tiny, model: torch.nn.Module, batch_size: int) -> None:
    pixels = PackedImages(tiny.pixels)
    rows = np.random.default_rng(0).permutation(len(pixels))[:41]
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = []

    def track(batches: object, total: int) -> object:
        told.append(total)
        return batches

    logits = predict_logits(
        model, pixels, rows, ready_views(["identity", "hflip"], *pixels.shape[:2]), CPU, batch_size, track
    )
    images = np.stack([pixels[row] for row in rows])
    assert list(logits) == ["identity", "hflip"] and told == [-(-41 // batch_size)]
    for view, shown in (("identity", images), ("hflip", images[:, :, ::-1].copy())):
        assert logits[view].shape == (41, 3) and logits[view].dtype == np.float32
        np.testing.assert_allclose(logits[view], direct(model, shown), atol=1e-4)
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_f59_the_identity_view_alone_is_the_same_with_and_without_others(tiny: Tiny, model: torch.nn.Module) -> None:
    pixels, rows = PackedImages(tiny.pixels), np.arange(20)
    alone = predict_logits(model, pixels, rows, ready_views(["identity"], *pixels.shape[:2]), CPU, 8)["identity"]
    both = predict_logits(model, pixels, rows, ready_views(["hflip", "identity"], *pixels.shape[:2]), CPU, 8)
    assert np.array_equal(alone, both["identity"]) and not np.array_equal(alone, both["hflip"])


def test_views_are_what_their_names_say() -> None:
    images = torch.arange(24.0).view(1, 2, 3, 4)
    assert torch.equal(VIEWS["identity"](images), images)
    assert torch.equal(VIEWS["hflip"](images)[..., 0], images[..., 3])
    assert torch.equal(VIEWS["hflip"](VIEWS["hflip"](images)), images)


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


def training_images(tiny: Tiny, draws: MemberSeeds) -> AugmentedImages:
    pixels = PackedImages(tiny.pixels)
    ids = list(pixels.row_of)
    rows = pixels.rows(ids)
    return AugmentedImages(pixels, rows, ids, np.arange(len(ids)) % 3, recipe().augment, draws)


DRAWS = MemberSeeds(5, "tiny", 1)


def loaded(tiny: Tiny, workers: int, draws: MemberSeeds = DRAWS) -> list[tuple[bytes, list[int]]]:
    images = training_images(tiny, draws)
    loader = training_loader(
        images, ResumableSampler(EpochOrder(draws, len(images), 16), 2, (0, 0)), workers, pin=False
    )
    return [(batch.numpy().tobytes(), labels.tolist()) for batch, labels in loader]


def test_f48_batches_are_the_same_across_worker_processes_and_differ_between_epochs(tiny: Tiny) -> None:
    torch.manual_seed(1)
    alone = loaded(tiny, 0)
    torch.manual_seed(2)
    assert loaded(tiny, 1) == alone
    assert loaded(tiny, 2) == alone
    assert len(alone) == 6 and len({content for content, _ in alone}) == 6
    assert loaded(tiny, 0, MemberSeeds(6, "tiny", 1)) != alone
    assert loaded(tiny, 0, MemberSeeds(5, "tiny", 2)) != alone
    assert loaded(tiny, 0, MemberSeeds(5, "other", 1)) != alone


def test_f48_an_image_is_changed_alike_in_whatever_batch_it_comes(tiny: Tiny) -> None:
    images = training_images(tiny, MemberSeeds(5, "tiny", 1))
    together = images[Batch(1, 0, np.arange(10))][0]
    for place in (0, 4, 9):
        assert torch.equal(images[Batch(1, 7, np.array([place]))][0][0], together[place])
    later = images[Batch(2, 0, np.arange(10))][0]
    assert all(not torch.equal(a, b) for a, b in zip(together, later, strict=True))


def test_f48_a_data_set_sent_to_another_process_changes_images_alike(tiny: Tiny) -> None:
    images = training_images(tiny, DRAWS)
    batch = Batch(0, 0, np.arange(4))
    here = images[batch][0]
    assert torch.equal(pickle.loads(pickle.dumps(images))[batch][0], here)


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 50), st.integers(0, 2**53 - 1))
@settings(max_examples=100, deadline=None)
def test_an_epoch_is_a_permutation_in_whole_batches(images: int, batch_size: int, epoch: int, seed: int) -> None:
    draws = MemberSeeds(seed, "m", 0)
    batches = EpochOrder(draws, images, batch_size).batches(epoch)
    assert len(batches) == max(images // batch_size, 1)
    assert all(len(batch) == min(batch_size, images) for batch in batches)
    seen = np.concatenate(batches)
    assert len(set(seen.tolist())) == len(seen) and set(seen.tolist()) <= set(range(images))
    if images % batch_size == 0 or images < batch_size:
        assert sorted(seen) == list(range(images))
    again = EpochOrder(draws, images, batch_size).batches(epoch)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_epochs_folds_models_and_seeds_have_orders_of_their_own() -> None:
    keys = [(seed, model, fold, epoch) for seed in (0, 1) for model in "ab" for fold in (0, 1) for epoch in (0, 1, 2)]
    orders = {EpochOrder(MemberSeeds(s, m, f), 64, 64).batches(e)[0].tobytes() for s, m, f, e in keys}
    assert len(orders) == len(keys)


def test_what_one_epoch_leaves_out_comes_in_others() -> None:
    draws = MemberSeeds(0, "m", 0)
    epochs = [set(np.concatenate(EpochOrder(draws, 23, 5).batches(epoch)).tolist()) for epoch in range(12)]
    assert all(len(seen) == 20 for seen in epochs)
    assert set.union(*epochs) == set(range(23)) and len({frozenset(seen) for seen in epochs}) > 6


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_f36_a_plan_begun_in_the_middle_is_the_rest_of_the_whole(
    images: int, batch_size: int, epochs: int, data: st.DataObject
) -> None:
    draws = MemberSeeds(3, "m", 2)
    whole = list(ResumableSampler(EpochOrder(draws, images, batch_size), epochs, (0, 0)))
    a_epoch = max(images // batch_size, 1)
    assert [(batch.epoch, batch.step) for batch in whole] == [(e, s) for e in range(epochs) for s in range(a_epoch)]
    done = data.draw(st.integers(0, len(whole)))
    rest = list(ResumableSampler(EpochOrder(draws, images, batch_size), epochs, divmod(done, a_epoch)))
    assert [(b.epoch, b.step, b.positions.tolist()) for b in rest] == [
        (b.epoch, b.step, b.positions.tolist()) for b in whole[done:]
    ]
