"""The network that tells a frontal chest X-ray from everything else, so that nothing else is scored.

    packages    pictures that are no chest X-rays, out of packages that anyone can download
    drawn       the like, drawn by rules
    volumes     the like, cut and projected from CT
    data        these and the chest X-rays, and what is held out of what
    warp        chest X-rays as they should be, and as they should not

    network     the network, and both networks as one graph
    training    how it learns
    report      thresholds, and what is refused at them
    appearance  all of this: five networks that are measured on what they never saw, and the final one
    engines     whether every engine refuses the same pictures

``appearance`` and ``engines`` are commands. Not for clinical use.
"""
