"""foldvote: an honest K-fold ensemble for image classification.

Plain functions over paths, arrays and tables. Nothing here knows of Snakemake: the rules' scripts, tests and
notebooks call the same functions. Modules lower in this list are imported by those above, never the other way:

    ensemble, submission, leaderboard       what comes out
    predict, training                       one member
    models, augment, batches, checkpoint    its parts
    pixels, folds, manifest                 the data
    config, tables, labels, files, errors   the ground
"""

__version__ = "0.1.0"
