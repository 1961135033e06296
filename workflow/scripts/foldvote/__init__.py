"""foldvote: an honest K-fold ensemble for image classification.

Plain functions over paths, arrays and tables. Nothing here knows of Snakemake: the rules' scripts, tests and
notebooks call the same functions. Modules lower in this list are imported by those above, never the other way:

    doctor, plan, machine                                                      before a run
    comparison                                                                 several runs
    report, reporttables, reportplots, exhibits, outcome                       a finished run on one page
    tunetables, tuneplots, studyresults                                        a search
    tuneworker
    course, study, trials, proposals
    gradcam, attention
    datacheck, checktables, checkplots, contact, findings, certificatewords    the data on one page
    facts, counts, lookalikes, light
    runs, preview, submission, wide, ensemble, rows                            what comes out
    evidence, leaderboard, scorecard, contest, nested, votes                   the vote
    slices, labelissues, consistency, bootstrap, calibration, decision
    greedy, simplex, shares, stacking, gather, candidates
    members, predict                                                           a member's two jobs
    training, epochs, run, stepping, passes, validation, optimization          how it learns
    losswatch, averaging, checkpoint, tracking, inference, views, models, heads, losses, mixes
    batches, augment, compute, team, lessons, pseudo, jobs, targets, weights
    folds, certificate, duplicates, pixels, faces                              the split and the packed images
    manifest, inspection, layouts, maskbase, folders, corrections              the photographs
    images, containers, textfiles, listing, demo
    page, drawing                                                              what pages are made of
    predictions, answers, voices, vote, metrics, tables, labels                the ground
    verdicts, launch, stopping, workers, console, schema, configreference, config, tuning, space, inclusion
    inheritance, datasettings, viewsteps, transforms, recipes, division, sections, viewnames, timmnames, faultlines
    yamlfile, paths, locks, files, seeds, codehash, rownames, errors
"""

__version__ = "0.1.0"
