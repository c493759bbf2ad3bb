"""An engine in a process of its own: what crashes or hangs there costs an answer, not the service.

backend   the engine as its user sees it
process   the process: started, listened to, ended
memory    the arrays, which both processes see
wire      what is said between the two
worker    the other side

The process is started afresh (nothing is forked, so no thread or lock of this one is in it) and in a session of its own
(so that Ctrl-C in the terminal is the user's process' to answer). It ends with this one, however this one ends. Linux
only: nothing has a name in ``/dev/shm`` or elsewhere, so nothing is left behind.
"""

from __future__ import annotations

from bedside.isolation.backend import IsolatedBackend, Limits

__all__ = ["IsolatedBackend", "Limits"]
