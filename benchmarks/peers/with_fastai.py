"""fastai's one-cycle training of a net of timm, a loop over folds; needs fastai 2 in the Python that runs it."""

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    DataLoaders,
    ImageBlock,
    LabelSmoothingCrossEntropy,
    Learner,
    Normalize,
    Resize,
    ResizeMethod,
    accuracy,
    aug_transforms,
)
from plain import make_net
from task import Task, collect, read_task


def loaders(images: pd.DataFrame, fold: int, task: Task, net: torch.nn.Module) -> DataLoaders:
    """The training images of a fold and its validation images, as fastai's tutorials make them."""
    size = (task.height, task.width)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(range(task.classes)))),
        get_x=lambda row: row["path"],
        get_y=lambda row: row["label"],
        splitter=lambda rows: (np.flatnonzero(rows["fold"] != fold), np.flatnonzero(rows["fold"] == fold)),
        item_tfms=Resize(size, ResizeMethod.Squish),
        batch_tfms=[
            *aug_transforms(max_rotate=0, max_warp=0, max_zoom=1.1),
            Normalize.from_stats(net.default_cfg["mean"], net.default_cfg["std"], cuda=False),
        ],
    )
    known = images[images["fold"] != -1].reset_index(drop=True)
    return block.dataloaders(known, bs=task.batch, num_workers=task.cores)


def predict(learner: Learner, loader: object) -> np.ndarray:
    """Probabilities, the mean over the image and its mirror image."""
    said = []
    learner.model.eval()
    with torch.inference_mode():
        for batch, *_ in loader:
            pixels = torch.Tensor(batch)
            each = [learner.model(one).softmax(1) for one in (pixels, pixels.flip(3))]
            said.append(torch.stack(each).mean(0).numpy())
    return np.concatenate(said)


def main() -> None:
    """All folds, one after the other."""
    folder, task, images = read_task()
    torch.set_num_threads(task.cores)
    torch.manual_seed(0)
    tests, members = images[images["fold"] == -1], []
    for fold in range(task.folds):
        net = make_net(task)
        data = loaders(images, fold, task, net)
        learner = Learner(data, net, loss_func=LabelSmoothingCrossEntropy(eps=0.05), metrics=accuracy)
        with learner.no_bar():
            learner.fit_one_cycle(task.epochs, task.lr, wd=0.01)
        members.append((predict(learner, data.valid), predict(learner, data.test_dl(tests))))
    collect(folder, images, members, task.classes)


if __name__ == "__main__":
    main()
