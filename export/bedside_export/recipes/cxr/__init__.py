"""The chest X-ray recipe, from pictures with experts' scores to the bundle.

    data                  tables and pictures, and who may learn from whom
    targets               pictures as the network sees them, and the lungs it should find in them
    learnt                the scores it should give: experts', and those derived from Brixia zones

    exposure              detail at any exposure, and greys as they are
    network               one graph from picture to scores
    opacity               experts' masks, and the heads that learn them in training alone
    augment               distortions
    training              the lung finder, then severity on the lungs it finds
    severity              all of this: networks of half of the patients each, and the final one of everybody

    report                what held-out patients say of the errors
    retake                the same picture, taken again minutes later
    changes               whether scores change as the experts' do
    repeatability         error of measurement, and the smallest change that is more
    repeatability_report  the same on the card and in the manifest
    trials                scores of pictures that were spoilt on purpose, as a table
    degradations          such pictures, scored
    conformal             intervals from errors on patients not trained on
    widening              how much wider they have to be on poor pictures and other projections
    intervals             all intervals of the bundle

    quality               a second network: is this a frontal chest X-ray?

    card                  the model card
    bundle                all of it into one bundle

``severity``, ``quality.appearance``, ``repeatability``, ``intervals`` and ``bundle`` are commands, which
``python -m bedside_export.recipes cxr`` runs in this order; so is ``degradations``, which is to run before
``intervals`` if poor pictures are to count. Not for clinical use.
"""
