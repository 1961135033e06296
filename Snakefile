"""foldvote, from its own folder: Snakemake finds this file and profiles/default; the workflow is in workflow/Snakefile."""


include: "workflow/Snakefile"


# Snakemake forgets the default target of an included file.
workflow.default_target = "all"
