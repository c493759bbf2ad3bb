"""Adapting a CT network to other scanners and other readers, on a user's own masks.

    networks    where the network and its first weights come from
    plan        what is asked for, and what training then makes of it
    adaptation  the training: held-out patients say when to stop; an interrupted one goes on where it was
    state       what is on the disk meanwhile
    report      Dice and volumes of each source, before and after

Not for clinical use.
"""

from __future__ import annotations

from bedside_export.finetuning.adaptation import Outcome, adapt
from bedside_export.finetuning.networks import Learner, Wanted, open_learner
from bedside_export.finetuning.plan import Plan

__all__ = ["Learner", "Outcome", "Plan", "Wanted", "adapt", "open_learner"]
