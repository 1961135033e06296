"""The checks of `make test-gpu`: each takes a Bench, raises if something is wrong, and says what it saw."""

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench import EVERYTHING, LARGE, SQUARE, Bench
from check import ROOT, Skipped
from safetensors.torch import load_file
from torch import nn

from foldvote.data.augmentation_draws import draw_changes
from foldvote.errors import UserError
from foldvote.io.files import read_json, write_json
from foldvote.runtime.device import choose_device, name_nondeterminism
from foldvote.runtime.gpus import gpu_lease, visible_gpus
from foldvote.training import compile_trial as trials
from foldvote.training.device_augmentation import augment_batch
from support.tiny_member import recipe


def leases(bench: Bench) -> str:
    """A job gets one device by UUID and sees only that; two jobs get two devices."""
    bench.need_gpu()
    devices = visible_gpus()
    named = devices and all(device.startswith(("GPU-", "MIG-")) for device in devices)
    assert named or shutil.which("nvidia-smi") is None, f"no UUIDs, although nvidia-smi is there: {devices}"
    code = (
        "import sys, torch\nfrom pathlib import Path\nfrom foldvote.runtime.gpus import gpu_lease\n"
        "with gpu_lease(print, 1, Path(sys.argv[1])) as devices:\n"
        "    print(devices[0], torch.cuda.device_count(), torch.cuda.get_device_properties(0).uuid, flush=True)\n"
        "    sys.stdin.read()\n"  # until all have answered
    )
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(bench.root / "locks")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts")},
        )
        for _ in range(min(len(devices), 2))
    ]
    answers = [job.stdout.readline().split() for job in jobs if job.stdout]
    for job in jobs:
        job.communicate(timeout=300)
    for device, seen, uuid in answers:
        assert seen == "1", f"a job of one GPU sees {seen}"
        assert device in devices
        whole = device.startswith("GPU-")
        assert not whole or device.removeprefix("GPU-") == uuid.removeprefix("GPU-"), f"leased {device}, got {uuid}"
    assert len({device for device, _, _ in answers}) == len(answers), f"two jobs on one GPU: {answers}"
    return f"{len(devices)} device(s), {devices[0][:12]}..., {len(answers)} job(s) side by side"


def a_gpu_that_is_not_there(bench: Bench) -> str:
    """A job whose GPU cannot be used ends with an error, and not on the CPU."""
    code = (
        "from foldvote.errors import UserError\nfrom foldvote.runtime.device import choose_device\n"
        "try:\n    choose_device('auto', None, 1, 1)\nexcept UserError as error:\n    print(error)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts"), "CUDA_VISIBLE_DEVICES": "GPU-00000000"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert "a GPU was granted, but torch can use none" in done.stdout, done.stdout + done.stderr
    return "refused in one line"


def fp32(bench: Bench) -> str:
    """fp32 with clipping, accumulation and EMA: equal bytes, and close to the CPU."""
    bench.twice("fp32", precision="fp32", **EVERYTHING)
    same = {"precision": "fp32", **EVERYTHING, "drop_rate": 0.0}  # a GPU drops other units than a CPU
    one, cpu = bench.train("same", **same), bench.train("same-cpu", 0, **same)
    apart = (one.history["val_loss"] - cpu.history["val_loss"]).abs().max()
    assert apart < 0.05, f"validation loss differs from the CPU's by {apart:.4f}"
    return f"equal bytes; validation loss within {apart:.1e} of the CPU's"


def bf16(bench: Bench) -> str:
    """bf16 with clipping, accumulation and EMA."""
    return f"equal bytes; validation loss {bench.twice('bf16', precision='bf16', **EVERYTHING).sidecar['val_loss']:.3f}"


def fp16(bench: Bench) -> str:
    """fp16 with a gradient scaler, clipping, accumulation and EMA."""
    bench.need_gpu()
    return f"equal bytes; validation loss {bench.twice('fp16', precision='fp16', **EVERYTHING).sidecar['val_loss']:.3f}"


def attention(bench: Bench) -> str:
    """A vision transformer: the backward pass of attention is deterministic in every precision."""
    names = ["fp32", "bf16", "fp16"] if bench.gpus else ["fp32"]
    changes = {"net": "test_vit", "size": SQUARE, "mix": [{"name": "mixup", "p": 0.5}]}
    for name in names:
        bench.twice(f"vit-{name}", pixels=bench.packed(SQUARE), precision=name, **changes)
    return f"equal bytes in {', '.join(names)}"


def layouts(bench: Bench) -> str:
    """Both memory layouts train, and predict alike up to rounding."""
    last, first = (bench.twice(f"layout-{layout}", precision="fp32", channels_last=layout) for layout in (True, False))
    apart = abs(last.sidecar["val_loss"] - first.sidecar["val_loss"])
    assert apart < 0.05, f"validation loss differs by {apart:.4f}"
    return f"equal bytes each; validation losses within {apart:.1e}"


def loader_processes(bench: Bench) -> str:
    """Their number changes no byte, pinned memory included."""
    plain = bench.train("workers-0")
    assert bench.train("workers-2", settings={"workers": 2}).digest == plain.digest
    return "0 and 2: equal bytes"


def augment_on_device(bench: Bench) -> str:
    """Augmentation on the device: equal bytes, also of 2 loader processes; images are the CPU's up to rounding."""
    written = ["light", {"rotate": 0.05}, {"erase": 0.3}]
    asked = {"precision": "fp32", "augment_on": "device", "augment": written}
    one = bench.twice("augmented", **asked)
    assert bench.train("augmented-2", settings={"workers": 2}, **asked).digest == one.digest, (
        "2 loader processes differ"
    )
    images = torch.arange(64 * 64 * 48 * 3).remainder(251).to(torch.uint8).view(64, 64, 48, 3)
    drawn = draw_changes(recipe(**asked).augment, list(range(64)), 64, 48)
    changes = [(kind, torch.from_numpy(numbers)) for kind, numbers in drawn]
    device = torch.device("cuda" if bench.gpus else "cpu")
    apart = (augment_batch(images.to(device), changes).cpu().int() - augment_batch(images, changes).int()).abs()
    assert apart.float().mean() < 0.01, f"images differ from the CPU's by {apart.float().mean():.3f} on average"
    return (
        f"equal bytes; {(apart > 0).float().mean():.2e} of the values differ from the CPU's, by at most {apart.max()}"
    )


def fast(bench: Bench) -> str:
    """runtime.reproducible: false trains, says so in the sidecar, and reaches about the same loss."""
    exact = bench.train("exact", precision="fp32")
    quick = bench.train("fast", settings={"reproducible": False}, precision="fp32")
    assert quick.sidecar["reproducible"] is (bench.gpus == 0)
    apart = abs(exact.sidecar["val_loss"] - quick.sidecar["val_loss"])
    assert apart < 0.1, f"validation loss differs by {apart:.4f}"
    choose_device("fp32", None, bench.gpus, 1)  # put the switches back
    return f"validation losses within {apart:.1e}"


def compile_trial(bench: Bench) -> str:
    """Fast mode tries compiled nets and remembers it; each mode trains a half-frozen net to about the same loss."""
    bench.need_gpu()
    _need_compiler()
    weights, memory = bench.train("given", precision="fp32").weights, bench.tiny.root / "compile.json"
    changes = {"precision": "fp32", "pretrained": str(weights), "freeze_epochs": 1, "epochs": 3, "ema": 0.9}
    changes |= {"drop_rate": 0.0}  # compiled code drops other units
    work = partial(bench.train, settings={"reproducible": False}, given=weights, **changes)
    plain, worth = work("not-compiled", compile=False), trials._WORTH_A_TRIAL
    trials._WORTH_A_TRIAL = 0.0
    try:
        memory.unlink(missing_ok=True)
        work("tried")
        measured = read_json(memory)
        assert len(measured) == 2, f"{len(measured)} trials of a net that is frozen and one that is not"
        assert all(one for entry in measured for one in entry["modes"].values()), f"a mode failed: {measured}"
        seen = []
        for mode in (trials.DEFAULT, trials.GRAPHS):
            write_json(memory, [entry | {"modes": {mode: {"start": 0.0, "step": 0.0}}} for entry in measured])
            done = work(mode)
            assert done.sidecar["compiled"] == mode, f"compiled: {done.sidecar['compiled']}, not {mode}"
            apart = abs(done.sidecar["val_loss"] - plain.sidecar["val_loss"])
            assert apart < 0.1, f"{mode}: validation loss differs by {apart:.4f}"
            seen.append(f"{mode} within {apart:.1e}")
    finally:
        trials._WORTH_A_TRIAL = worth
        choose_device("fp32", None, bench.gpus, 1)  # put the switches back
    whole = max(measured, key=lambda entry: entry["of"]["learning"])
    speeds = [f"{mode} {one['step'] * 1000:.1f} after {one['start']:.0f} s" for mode, one in whole["modes"].items()]
    return f"{', '.join(seen)}; ms a pass: {whole['plain'] * 1000:.1f}, {', '.join(speeds)}"


def sharing(bench: Bench) -> str:
    """Three members that train on one GPU at the same time have the bytes of a member alone."""
    bench.need_gpu()
    alone = bench.train("not-shared", epochs=4)
    children = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=children) as pool:
        digests = list(pool.map(_train_on_a_place, [bench] * 3, ["shared-0", "shared-1", "shared-2"]))
    assert {digest for digest, _ in digests} == {alone.digest}, "the bytes of members that shared differ"
    assert len({device for _, device in digests}) <= max(bench.count, 1)
    return f"3 members on {len({device for _, device in digests})} GPU(s): the bytes of one alone"


def _train_on_a_place(bench: Bench, name: str) -> tuple[str, str]:
    with gpu_lease(print, 1, bench.root / "places", sharers=3) as devices:
        return bench.train(name, epochs=4).digest, devices[0]


def exact_fp32(bench: Bench) -> str:
    """fp32 is fp32 if reproducible, in convolutions and matrix products; TF32 if not."""
    bench.need_gpu()
    torch.manual_seed(1)
    images, kernels, matrix = torch.randn(8, 64, 32, 32), torch.randn(64, 64, 3, 3), torch.randn(512, 512)
    wanted = [torch.conv2d(images.double(), kernels.double()), matrix.double() @ matrix.double()]
    errors = {}
    for reproducible in (False, True):
        device = choose_device("fp32", None, 1, 1, reproducible=reproducible).torch_device
        found = [torch.conv2d(images.to(device), kernels.to(device)), matrix.to(device) @ matrix.to(device)]
        errors[reproducible] = max(
            float((one.cpu().double() - other).abs().max() / other.abs().max())
            for one, other in zip(found, wanted, strict=True)
        )
    assert errors[True] < 5e-5, f"fp32 is off by {errors[True]:.1e}"
    return f"largest relative error {errors[True]:.1e}, fast {errors[False]:.1e}"


def no_deterministic_form(bench: Bench) -> str:
    """An operation without a deterministic form is refused by name."""
    bench.need_gpu()
    device = choose_device("fp32", None, 1, 1).torch_device
    refused = []
    for layer in (nn.AdaptiveAvgPool2d((3, 3)), nn.Upsample(scale_factor=2, mode="bicubic")):
        image = torch.randn(1, 2, 7, 7, device=device, requires_grad=True)
        try:
            with name_nondeterminism():
                layer(image).sum().backward()
        except UserError as error:
            assert "runtime.reproducible: false" in str(error)
            refused.append(str(error).split(" has ")[0])
    assert refused, "no operation was refused"
    return ", ".join(refused)


def out_of_memory(bench: Bench) -> str:
    """A batch that does not fit is split for real, and the result is that of a batch split on purpose."""
    bench.need_gpu()
    changes = {"net": "resnet18", "size": LARGE, "batch_size": 64, "precision": "fp32", "epochs": 1}
    small = {"predict_batch": 16}  # so that validation fits in any case
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    bench.train("memory-whole", pixels=bench.packed(LARGE), settings=small, **changes)
    peak, total = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(0.6 * peak / total, 1.0))
    try:
        split = bench.train("memory-split", pixels=bench.packed(LARGE), settings=small, **changes)
        parts = split.sidecar["parts"]
        assert parts > 1, f"{peak / 1e6:.0f} MB fitted into {0.6 * peak / 1e6:.0f} MB"
        changes |= {"accumulate": parts}
        wanted = bench.train("memory-parts", pixels=bench.packed(LARGE), settings=small, **changes)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert split.digest == wanted.digest, f"other bytes than with accumulate: {parts}"
    return f"{peak / 1e6:.0f} MB into {0.6 * peak / 1e6:.0f} MB: {parts} parts, the bytes of accumulate: {parts}"


def resume(bench: Bench) -> str:
    """A training killed with SIGKILL goes on from its checkpoint to the same bytes."""
    seen = []
    names = ["bf16", "fp16"] if bench.gpus else ["fp32"]
    for name in names:
        changes = {"precision": name, "epochs": 4, **EVERYTHING}
        whole = bench.train(f"whole-{name}", **changes)
        killed = f"killed-{name}"
        child = multiprocessing.get_context("spawn").Process(target=_train_and_save, args=(bench, killed, changes))
        child.start()
        resume_dir, deadline = bench.tiny.resume / killed, time.monotonic() + 240
        while child.is_alive() and not any(_step(path) >= 3 for path in resume_dir.glob("step-*.ckpt")):
            assert time.monotonic() < deadline, "no checkpoint within four minutes"
            time.sleep(0.005)
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL, f"the training ended with {child.exitcode} before it was killed"
        step = max(_step(path) for path in resume_dir.glob("step-*.ckpt"))
        assert bench.train(killed, **changes).digest == whole.digest, f"{name}: other bytes after a kill at step {step}"
        seen.append(f"{name} from step {step}")
    return f"equal bytes, {', '.join(seen)}"


def _train_and_save(bench: Bench, name: str, changes: dict[str, Any]) -> None:
    """Train with a checkpoint after every step."""
    bench.train(name, settings={"checkpoint_minutes": 1e-6}, **changes)


def _step(path: Path) -> int:
    return int(path.stem.split("-")[1])


def compiled(bench: Bench) -> str:
    """torch.compile: equal bytes, and close to the net as it is."""
    bench.need_gpu()
    _need_compiler()
    plain = bench.train("plain", precision="fp32")
    whole = bench.twice("compiled", precision="fp32", compile=True)
    apart = abs(plain.sidecar["val_loss"] - whole.sidecar["val_loss"])
    assert apart < 0.05, f"validation loss differs by {apart:.4f}"
    return f"equal bytes; validation loss within {apart:.1e} of the net that is not compiled"


def _need_compiler() -> None:
    if shutil.which(os.environ.get("CC", "gcc")) is None and shutil.which("cc") is None:
        raise Skipped("torch.compile needs a C compiler")


def prediction(bench: Bench) -> str:
    """A member predicts on the GPU what it predicts on the CPU, within a tolerance for its precision."""
    seen = []
    for name, allowed in (("fp32", 1e-3), ("bf16", 0.1)):
        if not bench.tiny.files(name).weights.exists():
            bench.train(name, precision=name, **EVERYTHING)
        here, cpu = bench.predict(name, bench.gpus), bench.predict(name, 0)
        apart = float((here - cpu).abs().max().max() / cpu.abs().max().max())
        assert apart < allowed, f"{name}: logits differ by {apart:.1e} of the largest"
        seen.append(f"{name} within {apart:.1e}")
    return ", ".join(seen) + " of the largest logit"


def together(bench: Bench) -> str:
    """Several processes train a member: equal bytes, and weights near those of one process in as many parts."""
    if bench.gpus:
        bench.need_gpu(2)
    size = 2 if bench.count < 4 else 4
    number = {"gpus": size} if bench.gpus else {"settings": {"cpu_processes": size}}
    changes = {"net": "test_efficientnet_gn", "precision": "fp32", "drop_rate": 0.0, "epoch": "last"}
    group = bench.twice("group", **number, **changes)
    alone = bench.train("alone", accumulate=size, **changes)
    one, other = load_file(group.weights), load_file(alone.weights)
    apart = max(float((one[name].float() - other[name].float()).abs().max()) for name in one)
    assert apart < 1e-2, f"weights differ from one process's by {apart:.1e}"
    if bench.gpus:
        bench.twice("sync-bn", **number, precision="bf16", sync_bn=True)
    return f"{size} processes: equal bytes; weights within {apart:.1e} of one process's"


CHECKS: list[Callable[[Bench], str]] = [
    leases,
    a_gpu_that_is_not_there,
    exact_fp32,
    no_deterministic_form,
    fp32,
    bf16,
    fp16,
    attention,
    layouts,
    loader_processes,
    augment_on_device,
    fast,
    compile_trial,
    sharing,
    prediction,
    resume,
    out_of_memory,
    compiled,
    together,
]
