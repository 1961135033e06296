"""The console command `foldvote`, and the start and end of a Snakemake run; no results are made here."""
