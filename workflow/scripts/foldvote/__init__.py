"""foldvote: an honest K-fold ensemble for image classification.

Plain functions over paths, arrays and tables. Nothing here knows of Snakemake: the rules' scripts, tests and
notebooks call the same functions. Modules lower in this list are imported by those above, never the other way:

    runs, preview, submission, ensemble, leaderboard, predictions, answers   what comes out
    members, predict, jobs                                                     a member's two jobs
    training, epochs, run, stepping, validation, optimization, losswatch       how it learns
    averaging, checkpoint, tracking, inference, models, heads, losses, mixes
    batches, augment, compute, targets, weights
    folds, certificate, duplicates, pixels, faces                              the split and the packed images
    manifest, inspection, layouts, maskbase, folders, corrections              the photographs
    images, containers, textfiles, listing, demo
    vote, metrics, tables, labels, workers, console                            the ground
    schema, config, inheritance, transforms, recipes, sections, timmnames, faultlines, yamlfile, paths, locks, files
    seeds, codehash, errors
"""

__version__ = "0.1.0"
