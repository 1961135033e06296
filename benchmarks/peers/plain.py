"""What most people write: one script, timm's net, OpenCV and albumentations in a DataLoader, a loop over folds."""

import cv2
import numpy as np
import pandas as pd
import timm
import torch
import torch.nn.functional as F
from albumentations import ColorJitter, Compose, HorizontalFlip, RandomResizedCrop, Resize
from safetensors.torch import load_file
from task import Task, collect, read_task
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    """Images as their net takes them, and their labels."""

    def __init__(self, rows: pd.DataFrame, task: Task, train: bool, mean: np.ndarray, std: np.ndarray) -> None:
        self.paths, self.labels, self.mean, self.std = rows["path"].tolist(), rows["label"].tolist(), mean, std
        size = (task.height, task.width)
        steps = [RandomResizedCrop(size, scale=(0.9, 1)), HorizontalFlip(), ColorJitter(0.1, 0.1, 0.1, 0.02)]
        self.change = Compose(steps if train else [Resize(*size)])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        image = cv2.cvtColor(cv2.imread(self.paths[place]), cv2.COLOR_BGR2RGB)
        pixels = (self.change(image=image)["image"] / 255 - self.mean) / self.std
        return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1), self.labels[place]


def make_net(task: Task) -> torch.nn.Module:
    """The net with its pretrained weights and a new classifier, channels last."""
    net = timm.create_model(task.net, num_classes=task.classes)
    weights = {name: value for name, value in load_file(task.weights).items() if not name.startswith("classifier")}
    net.load_state_dict(weights, strict=False)
    return net.to(memory_format=torch.channels_last)


@torch.inference_mode()
def predict(net: torch.nn.Module, rows: pd.DataFrame, task: Task, views: int = 2) -> np.ndarray:
    """Probabilities, the mean over the image and (with two views) its mirror image."""
    net.eval()
    config, said = net.default_cfg, []
    images = Images(rows, task, False, np.array(config["mean"]), np.array(config["std"]))
    for batch, _ in DataLoader(images, 64, num_workers=task.cores):
        batch = batch.contiguous(memory_format=torch.channels_last)
        each = [net(one).softmax(1) for one in (batch, batch.flip(3))[:views]]
        said.append(torch.stack(each).mean(0).numpy())
    return np.concatenate(said)


def train(rows: pd.DataFrame, validation: pd.DataFrame, task: Task) -> torch.nn.Module:
    """One fold's network, with a look at the validation images after each epoch."""
    net = make_net(task)
    config = net.default_cfg
    images = Images(rows, task, True, np.array(config["mean"]), np.array(config["std"]))
    loader = DataLoader(images, task.batch, shuffle=True, num_workers=task.cores, drop_last=True)
    optimizer = torch.optim.AdamW(net.parameters(), task.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.lr, task.epochs * len(loader), pct_start=0.1)
    for epoch in range(task.epochs):
        net.train()
        for batch, labels in loader:
            logits = net(batch.contiguous(memory_format=torch.channels_last))
            F.cross_entropy(logits, labels, label_smoothing=0.05).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        right = predict(net, validation, task, views=1).argmax(1) == validation["label"].to_numpy()
        print(f"epoch {epoch + 1}: accuracy {right.mean():.3f}", flush=True)
    return net


def main() -> None:
    """All folds, one after the other."""
    folder, task, images = read_task()
    torch.set_num_threads(task.cores)
    torch.manual_seed(0)
    cv2.setNumThreads(1)
    tests, members = images[images["fold"] == -1], []
    for fold in range(task.folds):
        validation = images[images["fold"] == fold]
        net = train(images[~images["fold"].isin([fold, -1])], validation, task)
        members.append((predict(net, validation, task), predict(net, tests, task)))
    collect(folder, images, members, task.classes)


if __name__ == "__main__":
    main()
