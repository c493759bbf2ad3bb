"""ONNX Runtime as most people use it, on CT: a session with its default options on a model that PyTorch exported.

The same loop over slices as in `ct_reference_side`. Between the comments "user" and "end user" stands what a person has
to write. Reads folders of DICOM on standard input, answers a JSON line for each.
"""

import json
import os
import sys
import time

# user
from pathlib import Path

import numpy as np
import onnxruntime
import pydicom

LOW, HIGH, MEAN, STD = -1000.0, 50.0, -653.2204, 628.5188
# end user
"""HU, as `bedside_export.ct_rules.RULES` has it for this network."""


def main() -> None:
    """Segment until standard input ends."""
    model, threads, labels_path = sys.argv[1:4]
    options = onnxruntime.SessionOptions()
    if (
        int(threads) != os.cpu_count()
    ):  # left alone, it ties threads to cores, and no longer does once told a number
        options.intra_op_num_threads = int(threads)
    # user
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # end user
    for line in sys.stdin:
        cpu, begin = time.process_time(), time.perf_counter()
        folder = line.rstrip("\n")
        # user
        files = [pydicom.dcmread(path) for path in Path(folder).iterdir()]
        files.sort(key=lambda file: float(file.ImagePositionPatient[2]))
        volume = np.stack(
            [
                file.pixel_array.astype(np.float32) * float(file.RescaleSlope) + float(file.RescaleIntercept)
                for file in files
            ]
        )
        labels = np.zeros(volume.shape, np.uint8)
        classes = session.get_outputs()[0].shape[1]
        for index, hu in enumerate(volume):
            image = ((np.clip(hu, LOW, HIGH) - MEAN) / STD).astype(np.float32)
            labels[index] = session.run(None, {"image": image[None, None]})[0][0].argmax(0)
        height, width = files[0].PixelSpacing
        gap = float(files[1].ImagePositionPatient[2]) - float(files[0].ImagePositionPatient[2])
        volumes = np.bincount(labels.ravel(), minlength=classes) * (height * width * gap / 1000)
        np.savez_compressed(labels_path, labels=labels)
        # end user
        answer = {
            "seconds": time.perf_counter() - begin,
            "cpu_seconds": time.process_time() - cpu,
            "stages_ms": {},
            "volumes_ml": volumes.tolist(),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
