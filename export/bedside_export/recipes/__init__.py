"""How the built-in bundles were trained: data, networks and measurements, one recipe a bundle.

    cxr                the chest X-ray bundle: scores, and what is refused instead of scored
    ct                 the CT bundle: lungs and opacity; and what a network learns of a user's own masks

    efficientnet_lite  the encoder of both networks, and its ImageNet start
    spread             error of measurement, and the smallest change that is more
    command            the command line of what writes a bundle
    precisions         a new bundle at lower precision
    reproduction       whether it is the bundle that ships, or by how much it moved

``python -m bedside_export.recipes`` goes from the data folder to a bundle. Not for clinical use.
"""
