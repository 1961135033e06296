"""What a finished run says of itself is enough to make its test predictions again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from foldvote.config.runtime import Runtime
from foldvote.data.label_space import known_classes
from foldvote.data.packed_images import PackedImages
from foldvote.deployment.finished_run import read_finished_run
from foldvote.errors import UserError
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import views_of
from foldvote.io.files import read_json, write_json
from foldvote.io.parquet import read_table
from foldvote.runtime.resources import JobResources
from support.deployed_run import HOME, deployed_run

TWO = {"joint": {}, "heads": {"heads": {"mask": "classes", "age": "ordinal"}, "size": "32x32"}}
FACTORS = {"mask": {"factors": ["mask"]}, "age": {"factors": ["age"], "size": "32x32"}}


@pytest.mark.parametrize(
    ("models", "use"), [(TWO, "mean"), (TWO, "greedy+offsets"), (TWO, "best_model"), (FACTORS, "geometric")]
)
def test_the_vote_of_members_logits_is_that_of_the_run(tmp_path: Path, models: dict, use: str) -> None:
    made = deployed_run(tmp_path, models, use=use)
    run = read_finished_run(made.results)
    logits = {}
    for model, fold in run.members:
        recipe = run.recipes[model]
        images = PackedImages(made.results / f"data/pixels/{recipe.packed.folder}/test.arrow")
        network, device = run.load((model, fold)), JobResources(0, 1, Runtime()).device(recipe)
        rows, views = np.arange(len(images)), views_of(recipe, run.views)
        own = predict_logits(device.place(network), images, rows, views, device, 256)
        codes = known_classes(recipe, HOME)[1]
        logits[model, fold] = {view: values[:, codes] for view, values in own.items()}
    probabilities, codes = run.vote(logits)
    expected = read_table(made.results / "ensemble/test.parquet")
    assert probabilities.tolist() == expected[[f"p_{name}" for name in HOME.classes]].to_numpy().tolist()
    assert codes.tolist() == expected["prediction"].tolist()
    assert len(set(codes.tolist())) > 1
    assert len(run.recipes) == (1 if use == "best_model" else 2)


def test_a_run_that_is_not_finished_or_was_trained_anew_is_refused(tmp_path: Path) -> None:
    with torch.inference_mode():
        made = deployed_run(tmp_path)
    sidecar = made.results / "train/model=small/fold=1/model.json"
    write_json(sidecar, read_json(sidecar) | {"sha256": "0" * 64})
    with pytest.raises(UserError, match=r"fold=1/model\.json: was trained anew since the vote was made"):
        read_finished_run(made.results)
    (made.results / "ensemble/weights.json").unlink()
    with pytest.raises(UserError, match=r"is no finished run \(ensemble/weights\.json is missing\)"):
        read_finished_run(made.results)
