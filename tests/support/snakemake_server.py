"""A process that has imported snakemake, and runs its command in a copy of itself for each line that it reads.

What the command imports takes most of the time of a start that has little to do.
"""

import json
import os
import signal
import sys

import pandas  # noqa: F401  # what snakemake.cli imports only once it is at work
import snakemake.cli
import snakemake.report.html_reporter

SECONDS = 600  # of a command

for line in sys.stdin:
    folder, words, environment, printed = json.loads(line)
    if not (child := os.fork()):
        signal.alarm(SECONDS)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        for descriptor, path in enumerate(("/dev/null", *printed)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), descriptor)
        sys.argv = ["snakemake", *words]
        sys.exit(snakemake.cli.main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
