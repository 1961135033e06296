"""The last words of a run: where everything lies, and what to do next."""

from foldvote.config import Config


def closing_words(config: Config, cores: int) -> str:
    """A few lines for the person at the console.

    Args:
        config: the experiment that just ended.
        cores: the cores it ran on, for the commands that are shown.
    """
    results, model = config.results, next(iter(config.models))
    submission = [f"  submission   {results}/submission.csv"] if config.has_test else []
    return "\n".join(
        [
            "",
            "Done.",
            f"  leaderboard  {results}/leaderboard.csv",
            *submission,
            f"  OOF          {results}/oof/ (logits of every view), {results}/ensemble/oof.parquet (the vote)",
            f"  proof        {results}/folds/certificate.json (no person on both sides of a split)",
            "Next:",
            f"  look         python -c \"import pandas; print(pandas.read_csv('{results}/leaderboard.csv'))\"",
            f"  one fold     snakemake --cores {cores} -R {results}/train/model={model}/fold=0/model.safetensors",
            "  your data    copy config/maskbase.yaml; config/README.md explains every key",
        ]
    )
