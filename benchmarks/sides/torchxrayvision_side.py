"""The reference side of the X-ray comparison: what torchxrayvision's own script does, in PyTorch eager.

A third argument, ``compile`` or ``bf16``, has the network compiled by PyTorch, or run under its autocast. Between the
comments "user" and "end user" stands what a person has to write; see `contender.count_lines`. Reads paths on standard
input, answers a JSON line for each. The steps are those of the library's example
(scikit-image reads, ``normalize``, first channel, ``XRayCenterCrop``, ``XRayResizer(224)``, the network without
gradients) with head v1 of Cohen et al. 2020 on the raw Lung Opacity logit.
"""

import contextlib
import json
import sys
import time

# user
import numpy as np
import skimage.io
import torch
import torchvision
import torchxrayvision as xrv

# end user

# user
EXTENT = (0.8705248236656189, 3.4137437)
OPACITY = (0.5484423041343689, 2.5535977)
# end user
"""(slope, intercept) on the Lung Opacity logit: mlmed/covid-severity, head version 1."""


def main() -> None:
    """Score until standard input ends."""
    weights, threads, mode = [*sys.argv[1:], "eager"][:3]
    torch.set_num_threads(int(threads))
    half: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    # user
    model = xrv.models.DenseNet(
        weights=None, num_classes=18, in_channels=1, op_threshs=None, apply_sigmoid=False
    )
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    index = xrv.datasets.default_pathologies.index("Lung Opacity")
    transform = torchvision.transforms.Compose([xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(224)])
    # end user
    if mode == "compile":
        # user of compile
        model.compile()
        # end user
    if mode == "bf16":
        # user of bf16
        half = torch.autocast("cpu", torch.bfloat16)
        # end user
    for line in sys.stdin:
        start = time.perf_counter()
        path = line.rstrip("\n")
        # user
        image = xrv.datasets.normalize(skimage.io.imread(path), 255)
        if image.ndim > 2:
            image = image[:, :, 0]
        with torch.no_grad(), half:
            batch = torch.from_numpy(transform(image[None]).astype(np.float32)).unsqueeze(0)
            logit = float(model(batch)[0, index])
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
