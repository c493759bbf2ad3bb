"""The CT recipe, from scans with experts' masks to the bundle; and training on masks that a user has.

    data          the public cases in HU, and who may learn from whom
    lungs         left and right lung, by thresholds and morphology
    network       from a slice to its classes
    augment       distortions, in HU
    trainer       the loop: learning rate, running average, losses; shared by all that trains here
    training      the built-in network's training
    inference     probabilities over a scan
    report        each case, by the network that never saw it, and what follows for a new patient
    opacity       all of this: a network without each case, and the final one of all
    bundle        what came of it into one bundle, with its model card

    cases         which scans and masks a folder holds, and who is held out
    masks         these, read as a network sees them
    phantoms      chests drawn with known lesions
    patterns      six patterns of opacity, learnt from labels that name them
    soft_readers  readers of phantoms who disagree in known ways
    soft          training on what several readers drew
    soft_report   how honest the probabilities are, against several readers

``opacity``, ``bundle``, ``patterns`` and ``soft`` are commands; ``python -m bedside_export.recipes ct`` runs the first
two. Not for clinical use.
"""
