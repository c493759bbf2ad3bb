"""ONNX Runtime as most people use it, on X-rays: a session with its default options on a model that PyTorch exported.

What torchxrayvision does to a picture is done with scikit-image and numpy. Between the comments "user" and "end user"
stands what a person has to write. Reads paths on standard input, answers a JSON line for each.
"""

import json
import os
import sys
import time

# user
import numpy as np
import onnxruntime
import skimage.io
import skimage.transform

EXTENT = (0.8705248236656189, 3.4137437)
OPACITY = (0.5484423041343689, 2.5535977)
# end user
"""(slope, intercept) on the Lung Opacity logit: mlmed/covid-severity, head version 1."""
# user
LUNG_OPACITY = 16
SIDE = 224
# end user
"""Place of that logit among torchxrayvision's, and pixels of the network's input."""


def main() -> None:
    """Score until standard input ends."""
    model, threads = sys.argv[1:3]
    options = onnxruntime.SessionOptions()
    if (
        int(threads) != os.cpu_count()
    ):  # left alone, it ties threads to cores, and no longer does once told a number
        options.intra_op_num_threads = int(threads)
    # user
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # end user
    for line in sys.stdin:
        start = time.perf_counter()
        path = line.rstrip("\n")
        # user
        image = skimage.io.imread(path).astype(np.float32)
        if image.ndim > 2:
            image = image[:, :, 0]
        image = (2 * (image / 255) - 1) * 1024
        side = min(image.shape)
        top, left = image.shape[0] // 2 - side // 2, image.shape[1] // 2 - side // 2
        image = image[top : top + side, left : left + side]
        image = skimage.transform.resize(image, (SIDE, SIDE), mode="constant", preserve_range=True)
        (logits,) = session.run(None, {"image": image[None, None].astype(np.float32)})
        logit = float(logits[0, LUNG_OPACITY])
        scores = [
            min(max(EXTENT[0] * logit + EXTENT[1], 0.0), 8.0),
            min(max(OPACITY[0] * logit + OPACITY[1], 0.0), 6.0),
        ]
        # end user
        print(
            json.dumps({"seconds": time.perf_counter() - start, "scores": scores, "stages_ms": {}}),
            flush=True,
        )


if __name__ == "__main__":
    main()
