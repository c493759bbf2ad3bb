"""Evidence: how well networks agree with experts, by the protocols of the papers that they come from.

    bedside-export evaluate cxr         severity scores: Cohen et al. 2020 (arXiv 2005.11856), on any scored X-rays
    bedside-export evaluate observers   two radiologists' Brixia scores, and a network's place among them

Needs the extras ``export`` and ``stats``. Not for clinical use.
"""
