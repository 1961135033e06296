"""The tables and figures of the report, for the page and as files beside it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from foldvote.config.metric_names import shown_metric
from foldvote.ensemble.leaderboard import COST_COLUMNS
from foldvote.ensemble.methods import simplest_first
from foldvote.evaluation.metrics import MORE_SCORES, SMALLEST
from foldvote.evaluation.slices import border_table
from foldvote.io.csv_files import write_csv
from foldvote.report.html import Table, table
from foldvote.report.results import figures
from foldvote.report.results.gallery import JOINT, ReportGallery, confused_pairs
from foldvote.report.results.inputs import RunResults
from foldvote.report.svg import Drawing, inline_svg, save_svg

MOST_PAIRS = 200  # rows of a table of confused pairs
MOST_SLICES = 24  # rows of the figure of slices
_SCORE_FORMATS = dict.fromkeys(("macro_f1", "accuracy", "log_loss", "ece", "brier"), ".4f")
_LEADERBOARD_FORMATS = _SCORE_FORMATS | dict.fromkeys(("macro_f1_low", "macro_f1_high"), ".3f")
_LEADERBOARD_FORMATS |= dict.fromkeys(("optimistic_macro_f1", "test_macro_f1", "test_accuracy"), ".4f")
_LEADERBOARD_FORMATS |= {"macro_f1_over_folds": ".3f", "temperature": ".2f"}
_LEADERBOARD_FORMATS |= dict.fromkeys(MORE_SCORES, ".4f")
_LEADERBOARD_FORMATS |= dict.fromkeys(COST_COLUMNS, ",.1f")
_MEMBER_FORMATS = {"seconds": ",.1f", "val_macro_f1": ".4f", "val_loss": ".4f", "waited": ".0%"}
_MEMBER_FORMATS |= dict.fromkeys(("memory", "gpu_memory"), ".2f")
_LABELS = {
    "macro_f1": "macro-F1",
    "macro_f1_low": "from",
    "macro_f1_high": "to",
    "macro_f1_over_folds": "± folds",
    "optimistic_macro_f1": "optimistic",
    "log_loss": "log-loss",
    "ece": "ECE",
    "brier": "Brier score",
    "fit_seconds": "fit s",
    "predict_seconds": "predict s",
    "megabytes": "MB",
    "val_macro_f1": "validation macro-F1",
    "val_loss": "validation loss",
    "waited": "waiting for images",
    "memory": "memory GB",
    "gpu_memory": "GPU memory GB",
    "accuracy_low": "from",
    "accuracy_high": "to",
    "test_macro_f1": "test F1",
    "test_accuracy": "test acc.",
}
_CONSISTENCY_LABELS = {
    "image_accuracy": "accuracy per image",
    "vote_accuracy": "after a vote per person",
    "unanimous": "persons whose images all agree",
    "agreement": "mean share of agreeing images",
}
_BORDER_LABELS = {
    "given_older": "labelled in the last band",
    "predicted_older": "predicted in it",
    "probability_older": "mean probability of it",
}
_CALIBRATION_LABELS = {
    "log_loss_before": "log-loss before",
    "log_loss_after": "after",
    "brier_before": "Brier score before",
    "brier_after": "after",
    "ece_before": "ECE before",
    "ece_after": "after",
}
_HINTS = {
    "macro_f1": "Mean F1 over all classes, out of fold; nested for ensembles",
    "macro_f1_low": "Lower end of the 95 % interval (bootstrap over persons)",
    "macro_f1_high": "Upper end of the 95 % interval (bootstrap over persons)",
    "macro_f1_over_folds": "Standard deviation over the members of a model",
    "temperature": "The temperature that calibrates it; above 1: overconfident",
    "optimistic_macro_f1": "On the images that the ensemble was fitted on",
    "log_loss": "In nats; the ensemble's after calibration",
    "ece": "Expected calibration error, 15 bins",
    "test_macro_f1": "Macro-F1 on the test images; not used for any choice",
    "test_accuracy": "Accuracy on the test images; not used for any choice",
    "waited": "Share of the seconds in which the training waited for images, or loaded them itself",
    "memory": "The most that the training process held, without its loader processes",
    "gpu_memory": "The most that its tensors took on a GPU",
}


def class_scores(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """F1, precision, recall and support of each class for the ensemble, in the order of the codes.

    Args:
        metrics: the content of ensemble/metrics.json; if it has test scores, test F1 and test support are added.
    """
    own = metrics["oof"]["ensemble"]["classes"]
    rows = [{"code": code, "class": name, **own[name]} for code, name in enumerate(metrics["classes"])]
    frame = pd.DataFrame(rows)[["code", "class", "f1", "precision", "recall", "support"]]
    if "test" in metrics:
        test = metrics["test"]["ensemble"]["classes"]
        frame["test_f1"] = [test[name]["f1"] for name in metrics["classes"]]
        frame["test_support"] = [test[name]["support"] for name in metrics["classes"]]
    return frame


def main_metric(metrics: Mapping[str, Any]) -> str:
    """The main metric's name in tables.

    Args:
        metrics: the content of ensemble/metrics.json.
    """
    return str(metrics.get("metric", "macro_f1"))


def vote_scores(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """The main metric of each method, nested and optimistic, and its difference from the one in use; simplest first.

    Args:
        metrics: the content of ensemble/metrics.json.
    """
    rows, used, main = [], metrics["chosen"], main_metric(metrics)
    for kind in simplest_first(metrics["oof"]["votes"]):
        own = metrics["oof"]["votes"][kind]
        against = own["against_chosen"]
        row = {"method": kind, main: own[main], "optimistic": own["optimistic"][main]}
        row |= {"gap": own["optimistic"][main] - own[main], "difference": against["difference"]}
        rows.append(row | {name: against[name] for name in ("low", "high", "better")})
    scores = pd.DataFrame(rows)
    scores.loc[scores["method"] == used, ["difference", "low", "high", "better"]] = np.nan  # not compared with itself
    return scores


def factor_scores(metrics: Mapping[str, Any], factors: Iterable[str]) -> pd.DataFrame:
    """Accuracy and macro-F1 of each factor, for the ensemble and for each model; also for the ensemble on test images.

    Args:
        metrics: the content of ensemble/metrics.json.
        factors: their names, in the order to show.
    """
    named = {"ensemble": metrics["oof"]["ensemble"], **metrics["oof"]["models"]}
    if "test" in metrics:
        named["ensemble, test images"] = metrics["test"]["ensemble"]
    rows = [
        {"factor": factor, "of": name, **own["factors"][factor]}
        for factor in factors
        for name, own in named.items()
        if factor in own["factors"]
    ]
    return pd.DataFrame(rows, columns=["factor", "of", "accuracy", "macro_f1"])


def calibration_scores(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Log-loss, Brier score and ECE before and after calibration, for the ensemble and for each model.

    Args:
        metrics: the content of ensemble/metrics.json.
    """
    known = {"ensemble": (metrics["calibration"]["before"], metrics["calibration"]["after"])}
    known |= {name: (own, own["calibrated"]) for name, own in metrics["oof"]["models"].items() if "calibrated" in own}
    rows = []
    for of, pair in known.items():
        by_time = dict(zip(("before", "after"), pair, strict=True))
        scores = {f"{name}_{time}": by_time[time][name] for name in ("log_loss", "brier", "ece") for time in by_time}
        rows.append({"of": of, **scores})
    return pd.DataFrame(rows)


def page_tables(run: RunResults) -> dict[str, Any]:
    """Tables by name; None where there is nothing to show.

    Args:
        run: the finished run.
    """
    metrics = run.metrics
    rounded = dict.fromkeys(("f1", "precision", "recall", "test_f1"), ".3f")
    return {
        "leaderboard": _leaderboard(run.leaderboard),
        "votes": _votes(metrics),
        "classes": table(class_scores(metrics), "Classes", formats=rounded, labels={"f1": "F1", "test_f1": "test F1"}),
        "factors": _or_none(
            factor_scores(metrics, run.label_space.factors),
            "Scores of each factor",
            formats=_SCORE_FORMATS,
            labels=_LABELS,
        ),
        "slices": _slices(run.slices),
        "border": _border(run),
        "calibration": _calibration(metrics),
        "consistency": _consistency(metrics["consistency"]["fields"]),
        "members": table(
            pd.DataFrame(_members(run)).dropna(axis="columns", how="all"),
            "Members",
            formats=_MEMBER_FORMATS,
            labels=_LABELS,
            hints=_HINTS,
        ),
        "weights": _or_none(
            pd.DataFrame(run.vote.get("weights", {}).items(), columns=["candidate", "weight"]),
            "Weights of the ensemble in use",
            formats={"weight": ".4f"},
        ),
    }


def draw_figures(run: RunResults, gallery: ReportGallery) -> dict[str, Figure]:
    """The figures that are also written as files, by name.

    Args:
        run: the finished run.
        gallery: for the confusion matrix of the classes.
    """
    votes = run.leaderboard[run.leaderboard["kind"] == "vote"]
    return {
        "votes": figures.plot_votes(votes, main_metric(run.metrics)),
        "curves": figures.plot_curves(_by_model(run)),
        "confusion": _confusion(gallery.confusions[0]),
        "reliability": figures.plot_reliability(run.reliability),
        "slices": figures.plot_slices(figures.several_values(run.slices).head(MOST_SLICES)),
        "classes": figures.plot_classes(class_scores(run.metrics).head(figures.MOST_BARS)),
    }


def page_figures(run: RunResults, drawn: Mapping[str, Figure]) -> dict[str, Any]:
    """Figures of the page by name; `curves` is a list of pairs of a model and its figure, for tabs.

    Args:
        run: the finished run.
        drawn: the figures of `draw_figures`.
    """
    alt_texts = {
        "votes": f"Points: nested and optimistic {shown_metric(main_metric(run.metrics))} of each ensemble method.",
        "reliability": "Lines: accuracy against confidence, before and after calibration.",
        "slices": "Points with bars: accuracy of the worst slices and its interval.",
        "classes": "Bars: F1 of each class.",
    }
    shown: dict[str, Any] = {name: inline_svg(drawn[name], alt) for name, alt in alt_texts.items()}
    if len(run.label_space.classes) > figures.MOST_BARS:
        shown["classes"] = None
    shown["curves"] = [(model, _curve(model, own)) for model, own in _by_model(run).items()]
    return shown


def save_files(run: RunResults, gallery: ReportGallery, drawn: Mapping[str, Figure], folder: Path) -> None:
    """Write the figures as SVG, and as CSV the tables that are in no other file.

    Args:
        run: the finished run.
        gallery: for the confused pairs and the persons.
        drawn: the figures of `draw_figures`.
        folder: where the files are written.

    Raises:
        UserError: if a file cannot be written.
    """
    for name, figure in drawn.items():
        save_svg(figure, folder / f"{name}.svg")
    write_csv(class_scores(run.metrics).round(6), folder / "classes.csv", for_people=True)
    pairs = [confused_pairs(run, each).assign(confusion=each.name) for each in gallery.confusions]
    write_csv(
        pd.concat(pairs, ignore_index=True).drop(columns=["true", "predicted"]).round(6),
        folder / "pairs.csv",
        for_people=True,
    )
    write_csv(gallery.disagreeing.round(6), folder / "persons.csv", for_people=True)
    write_csv(
        loss_rows(run, np.argsort(run.probability_of(run.labels), kind="stable")),
        folder / "losses.csv",
        for_people=True,
    )


def loss_rows(run: RunResults, positions: Iterable[int]) -> pd.DataFrame:
    """One row per image: true class, prediction, the probabilities of both, and the loss in nats.

    Args:
        run: the finished run.
        positions: of the images in run.rows, in the order wanted.
    """
    names = np.asarray(run.label_space.classes, dtype=object)
    frame = pd.DataFrame(
        {
            "image_id": run.rows["image_id"],
            "path": run.rows["path"],
            "class": names[run.labels],
            "prediction": names[run.predicted],
            "p_class": run.probability_of(run.labels),
            "p_prediction": run.probability_of(run.predicted),
            "loss": -np.log(np.clip(run.probability_of(run.labels), SMALLEST, 1.0)),
        }
    )
    return frame.iloc[list(positions)].round(6).reset_index(drop=True)


def _leaderboard(leaderboard: pd.DataFrame) -> Table:
    """The leaderboard without its empty columns."""
    shown = leaderboard.loc[:, (leaderboard.notna() & (leaderboard != "")).any()]
    return table(shown, "Leaderboard, out of fold", formats=_LEADERBOARD_FORMATS, labels=_LABELS, hints=_HINTS)


def _votes(metrics: Mapping[str, Any]) -> Table:
    main, differences = main_metric(metrics), dict.fromkeys(("gap", "difference", "low", "high"), "+.4f")
    return table(
        vote_scores(metrics),
        f"Ensemble methods: nested and optimistic {shown_metric(main)}, and the difference from the one in use",
        formats=dict.fromkeys((main, "optimistic"), ".4f") | differences | {"better": ".0%"},
        labels={main: f"nested {shown_metric(main)}", "difference": "difference", "low": "from", "high": "to"},
        hints={"better": "Share of the bootstrap draws in which it is better than the method in use"},
    )


def _slices(slices: pd.DataFrame) -> list[tuple[str, Table]]:
    """A table for each slicing, with its name, for tabs."""
    shown = figures.several_values(slices).dropna(axis="columns", how="all")
    return [
        (
            name,
            table(
                rows.drop(columns="slice"),
                f"Slices by {name.replace('_', ' ')}",
                formats={one: ".3f" for one in rows if one.startswith(("accuracy", "macro_f1", "log_loss"))},
                labels=_LABELS,
            ),
        )
        for name, rows in shown.groupby("slice", sort=False)
    ]


def _border(run: RunResults) -> Table | None:
    return _or_none(
        border_table(run.rows, run.probabilities, run.label_space, run.numeric),
        "Ages near the last age border",
        formats=dict.fromkeys(_BORDER_LABELS, ".1%"),
        labels=_BORDER_LABELS | ({run.numeric.column: run.numeric.name} if run.numeric else {}),
    )


def _calibration(metrics: Mapping[str, Any]) -> Table:
    return table(
        calibration_scores(metrics),
        "Before and after calibration, which was fitted on other persons (ensemble: "
        f"{metrics['calibration']['method']}, models: temperature)",
        formats=dict.fromkeys(_CALIBRATION_LABELS, ".4f"),
        labels=_CALIBRATION_LABELS,
    )


def _consistency(fields: Mapping[str, Mapping[str, float]]) -> Table | None:
    rows = [{"field": name, **{key: own[key] for key in _CONSISTENCY_LABELS}} for name, own in fields.items()]
    return _or_none(
        pd.DataFrame(rows),
        "Fields that are the same for all images of a person",
        formats=dict.fromkeys(_CONSISTENCY_LABELS, ".1%"),
        labels=_CONSISTENCY_LABELS,
    )


def _members(run: RunResults) -> Iterable[dict[str, Any]]:
    for (model, fold), history in run.histories.items():
        sidecar, timing = run.sidecars[model, fold], run.trainings.get((model, fold), {})
        yield {
            "model": model,
            "fold": fold,
            "epochs": len(history),
            "predicts_with": ", ".join(map(str, sidecar["epochs"])),
            "val_macro_f1": sidecar["val_macro_f1"],
            "val_loss": sidecar["val_loss"],
            "seconds": history["seconds"].sum(),
            "waited": timing["waited_seconds"] / max(timing["seconds"], 1e-9) if "waited_seconds" in timing else None,
            "memory": timing["peak_host_bytes"] / 1e9 if "peak_host_bytes" in timing else None,
            "gpu_memory": timing["peak_gpu_bytes"] / 1e9 if timing.get("peak_gpu_bytes") else None,
            "weights": sidecar["sha256"][:12],
        }


def _by_model(run: RunResults) -> dict[str, dict[int, pd.DataFrame]]:
    by_model: dict[str, dict[int, pd.DataFrame]] = {}
    for (model, fold), history in run.histories.items():
        by_model.setdefault(model, {})[fold] = history
    return by_model


def _curve(model: str, folds: Mapping[int, pd.DataFrame]) -> Drawing:
    return inline_svg(
        figures.plot_curves({model: folds}),
        f"Learning curves of {model}: loss and validation macro-F1 of each fold.",
        "A ring marks the epoch with the best score. The training loss is measured with augmentation and smoothed "
        "labels: compare its trend with that of the validation loss, not its level.",
    )


def _confusion(confusion: Any) -> Figure:
    name = "classes" if confusion.name == JOINT else confusion.name
    return figures.plot_confusion(confusion.counts, confusion.levels, name)


def _or_none(rows: pd.DataFrame, caption: str, **options: Any) -> Table | None:
    return table(rows, caption, **options) if len(rows) else None
