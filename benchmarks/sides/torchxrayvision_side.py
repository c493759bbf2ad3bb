"""The reference side of the X-ray comparison: what torchxrayvision's own script does, in PyTorch eager.

Reads paths on standard input, answers a JSON line for each. The steps are those of the library's example
(scikit-image reads, ``normalize``, first channel, ``XRayCenterCrop``, ``XRayResizer(224)``, the network without
gradients) with head v1 of Cohen et al. 2020 on the raw Lung Opacity logit.
"""

import json
import sys
import time

import numpy as np
import skimage.io
import torch
import torchvision
import torchxrayvision as xrv

EXTENT = (0.8705248236656189, 3.4137437)
OPACITY = (0.5484423041343689, 2.5535977)
"""(slope, intercept) on the Lung Opacity logit: mlmed/covid-severity, head version 1."""


def main() -> None:
    """Score until standard input ends."""
    weights, threads = sys.argv[1:3]
    torch.set_num_threads(int(threads))
    model = xrv.models.DenseNet(
        weights=None, num_classes=18, in_channels=1, op_threshs=None, apply_sigmoid=False
    )
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    index = xrv.datasets.default_pathologies.index("Lung Opacity")
    transform = torchvision.transforms.Compose([xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(224)])
    for line in sys.stdin:
        start = time.perf_counter()
        image = xrv.datasets.normalize(skimage.io.imread(line.rstrip("\n")), 255)
        if image.ndim > 2:
            image = image[:, :, 0]
        with torch.no_grad():
            batch = torch.from_numpy(transform(image[None]).astype(np.float32)).unsqueeze(0)
            logit = float(model(batch)[0, index])
        scores = [
            min(max(EXTENT[0] * logit + EXTENT[1], 0.0), 8.0),
            min(max(OPACITY[0] * logit + OPACITY[1], 0.0), 6.0),
        ]
        print(
            json.dumps({"seconds": time.perf_counter() - start, "scores": scores, "stages_ms": {}}),
            flush=True,
        )


if __name__ == "__main__":
    main()
