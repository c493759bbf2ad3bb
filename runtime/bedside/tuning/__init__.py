"""Tuning: which engine and precision runs a bundle best on this device, and still answers as the reference does.

candidates      what could run here
bench           where it is built and run: in processes of their own
qualification   the main flow: try, refuse, time, rank; and keep a plan
outcome         what came of one candidate, and which is the best
report          what came of all
key             what a plan holds for
plan            what it says
plans           where it lies
opening         ``backend="auto"``
switching       answer at once, tune meanwhile, then switch
background      the tuning meanwhile, in a process of its own
"""

from __future__ import annotations

from bedside.tuning.background import BackgroundTuning
from bedside.tuning.candidates import Candidate, Choice, list_candidates
from bedside.tuning.key import PlanKey, key_for
from bedside.tuning.opening import ChosenBackend, open_tuned
from bedside.tuning.outcome import Outcome
from bedside.tuning.plan import Plan, Planned
from bedside.tuning.plans import Found, Plans, default_cache
from bedside.tuning.qualification import Request, keep, tune
from bedside.tuning.report import Report
from bedside.tuning.switching import SwitchingBackend

__all__ = [
    "BackgroundTuning",
    "Candidate",
    "Choice",
    "ChosenBackend",
    "Found",
    "Outcome",
    "Plan",
    "PlanKey",
    "Planned",
    "Plans",
    "Report",
    "Request",
    "SwitchingBackend",
    "default_cache",
    "keep",
    "key_for",
    "list_candidates",
    "open_tuned",
    "tune",
]
