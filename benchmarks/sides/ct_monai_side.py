"""MONAI's way on CT: its own transforms, and `monai.inferers.sliding_window_inference` over the slices.

Between the comments "user" and "end user" stands what a person has to write. Reads folders of DICOM on standard input,
answers a JSON line for each.
"""

import json
import sys
import time
import warnings

# user
import numpy as np
import torch

warnings.simplefilter("ignore")  # MONAI tells of what other libraries will change

from monai.data import PydicomReader  # noqa: E402 - after the filter of its warnings; so are those below
from monai.inferers import sliding_window_inference  # noqa: E402
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, ScaleIntensityRange  # noqa: E402

from bedside_export.ct_models import L3UNet  # noqa: E402
from bedside_export.ct_rules import RULES  # noqa: E402

RULE = RULES["l3-unet"]
# end user


def main() -> None:
    """Segment until standard input ends."""
    weights, threads, labels_path = sys.argv[1:4]
    torch.set_num_threads(int(threads))
    # user
    state = torch.load(weights, weights_only=True)
    classes, bias = len(state["outc.conv.weight"]), "inc.double_conv.0.bias" in state
    model = L3UNet(1, classes, bias=bias)
    model.load_state_dict(state)
    model.eval()
    bounds = [(value - RULE.mean) / RULE.std for value in (RULE.low, RULE.high)]
    load = Compose(
        [
            LoadImage(PydicomReader, image_only=True),
            EnsureChannelFirst(channel_dim="no_channel"),
            ScaleIntensityRange(RULE.low, RULE.high, *bounds, clip=True),
        ]
    )
    # end user
    for line in sys.stdin:
        cpu, begin = time.process_time(), time.perf_counter()
        folder = line.rstrip("\n")
        # user
        image = load(folder)  # (1, X, Y, Z)
        slices = image.permute(3, 0, 2, 1).as_tensor().contiguous()  # (Z, 1, Y, X)
        with torch.no_grad():
            logits = sliding_window_inference(slices, slices.shape[2:], sw_batch_size=1, predictor=model)
        labels = logits.argmax(1).numpy().astype(np.uint8)
        if image.affine[2, 2] < 0:
            labels = labels[::-1]  # from the feet to the head
        voxel_ml = abs(float(torch.linalg.det(image.affine[:3, :3]))) / 1000
        volumes = np.bincount(labels.ravel(), minlength=classes) * voxel_ml
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
