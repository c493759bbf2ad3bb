"""The reference side of the CT comparison: a plain loop in PyTorch eager, as most people write it.

Reads folders of DICOM on standard input, answers a JSON line for each: pydicom reads and decodes every file, slices
are sorted by position, rescaled to HU, clipped and normalised, and go through the network one at a time, without
gradients; the class is the argmax, and a volume is a count of voxels. A fourth argument, ``compile`` or ``bf16``, has
the network compiled by PyTorch, or run under its autocast. Between the comments "user" and "end user" stands what a
person has to write.
"""

import contextlib
import json
import sys
import time

# user
from pathlib import Path

import numpy as np
import pydicom
import torch

from bedside_export.ct_models import L3UNet
from bedside_export.ct_rules import RULES

# end user

RULE = RULES["l3-unet"]


def main() -> None:
    """Segment until standard input ends."""
    weights, threads, labels_path, mode = [*sys.argv[1:], "eager"][:4]
    torch.set_num_threads(int(threads))
    half: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    # user
    state = torch.load(weights, weights_only=True)
    classes, bias = len(state["outc.conv.weight"]), "inc.double_conv.0.bias" in state
    model = L3UNet(1, classes, bias=bias)
    model.load_state_dict(state)
    model.eval()
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
        # end user
        spent = {"read": time.perf_counter() - begin, "preprocess": 0.0, "inference": 0.0}
        # user
        labels = np.zeros(volume.shape, np.uint8)
        with torch.no_grad(), half:
            for index, hu in enumerate(volume):
                # end user
                start = time.perf_counter()
                # user
                image = torch.from_numpy((np.clip(hu, RULE.low, RULE.high) - RULE.mean) / RULE.std).float()
                # end user
                prepared = time.perf_counter()
                # user
                labels[index] = model(image[None, None]).argmax(1)[0].numpy()
                # end user
                spent["preprocess"] += prepared - start
                spent["inference"] += time.perf_counter() - prepared
        start = time.perf_counter()
        # user
        height, width = files[0].PixelSpacing
        gap = float(files[1].ImagePositionPatient[2]) - float(files[0].ImagePositionPatient[2])
        volumes = np.bincount(labels.ravel(), minlength=classes) * (height * width * gap / 1000)
        # end user
        measured = time.perf_counter()
        # user
        np.savez_compressed(labels_path, labels=labels)
        # end user
        end = time.perf_counter()
        spent |= {"measure": measured - start, "write": end - measured}
        answer = {
            "seconds": end - begin,
            "cpu_seconds": time.process_time() - cpu,
            "stages_ms": {stage: seconds * 1e3 for stage, seconds in spent.items()},
            "volumes_ml": volumes.tolist(),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
