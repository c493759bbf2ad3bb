"""What is here, what is missing, and the command that fixes it.

examine    looks at all of it: an `Examination`
Check      one line of it: ok, missing, broken, or absent, and the fix
Engine     one backend, and the precisions that it ran in

Nothing is installed, downloaded or kept, and what is told names no patient, host or user.
"""

from __future__ import annotations

from bedside.doctor.check import STATUSES, Check
from bedside.doctor.engines import Engine
from bedside.doctor.examination import AREAS, SCHEMA, Examination, examine

__all__ = ["AREAS", "SCHEMA", "STATUSES", "Check", "Engine", "Examination", "examine"]
