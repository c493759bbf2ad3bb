"""What a recipe tells: its own progress, and of other libraries warnings alone."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import logging
from bedside_export.recipes.progress import tell_progress
tell_progress()
logging.getLogger("bedside_export.recipes.ct").info("step 50 of 600")
logging.getLogger("__main__").info("a recipe run as a module")
logging.getLogger("onnx_ir.passes").info("removed a node")
logging.getLogger("nncf").warning("no such operator")
"""


def test_others_chatter_is_left_out_and_their_warnings_are_not() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stderr
    messages = [line.split(" ", 2)[2] for line in told.splitlines()]
    assert messages == ["step 50 of 600", "a recipe run as a module", "no such operator"]
