"""Run docs/eda.ipynb on ../results and keep what it shows in it: python docs/eda_run.py, after a run of the demo."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("eda.ipynb")


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs.

    Args:
        folder: where it runs; the results are those of `../results`.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, record_timing=False, timeout=300).execute()
    # The kernel writes its own version here, which says nothing of the notebook.
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


if __name__ == "__main__":
    done = executed(NOTEBOOK.parent)
    text = nbformat.writes(done)
    if str(NOTEBOOK.parents[1]) in text:
        sys.exit("an output holds a path of this machine; mend the notebook")
    NOTEBOOK.write_text(text + "\n", encoding="utf-8")
