"""Python processes of their own, for tests of locks, signals and logs."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[2] / "workflow/scripts"


def python(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start a process that can import the library and runs `code` with these arguments and environment variables."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(LIBRARY)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
