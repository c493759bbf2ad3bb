"""bedside's side of the CT comparison: reads folders on standard input, answers a JSON line for each."""

import json
import sys
import time

# user
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

import bedside
from bedside.nifti.writing import NiftiWriter
from bedside.scan import Scan

# end user


# user
class Labels:
    """Writes the labels of a scan, as ``bedside segment --out`` does."""

    def __init__(self, path: str, stack: ExitStack) -> None:
        self._path = path
        self._stack = stack
        self._writer: NiftiWriter | None = None

    def open(self, scan: Scan) -> "Labels":
        """Begin the file."""
        self._writer = self._stack.enter_context(NiftiWriter(self._path, scan.grid))
        return self

    def put(
        self,
        index: int,
        labels: npt.NDArray[np.uint8],
        probabilities: Callable[[], npt.NDArray[np.float32]],  # noqa: ARG002 - as bedside.segmentation.LabelSink
    ) -> None:
        """Write a slice."""
        if self._writer is not None:
            self._writer.write(index, labels)


# end user


def main() -> None:
    """Segment until standard input ends."""
    bundle, backend, precision, threads, labels_path = sys.argv[1:6]
    # user
    with bedside.open_ct(bundle, backend, precision=precision, threads=int(threads)) as segmenter:
        # end user
        for line in sys.stdin:
            folder = line.rstrip("\n")
            cpu, begin = time.process_time(), time.perf_counter()
            # user
            with ExitStack() as stack:
                sink = Labels(labels_path, stack).open
                result = segmenter.segment(folder, bedside.Request(sink=sink)).raise_for_status()
                # end user
                segmented = time.perf_counter()
            end = time.perf_counter()
            stages = {**result.timing_ms}
            del stages["total"]
            stages["write"] += (end - segmented) * 1e3  # the file's end
            # user
            found = result.opacification
            # end user
            answer = {
                "seconds": end - begin,
                "cpu_seconds": time.process_time() - cpu,
                "stages_ms": stages,
                "volumes_ml": [] if found is None else [tissue.ml for tissue in found.tissues],
                "held_peak_mib": result.peak_memory_mib,
            }
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
