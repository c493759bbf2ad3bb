"""The reference side of the CT comparison: a plain loop in PyTorch eager, as most people write it.

Reads folders of DICOM on standard input, answers a JSON line for each: pydicom reads and decodes every file, slices
are sorted by position, rescaled to HU, clipped and normalised, and go through the network one at a time, without
gradients; the class is the argmax, and a volume is a count of voxels.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import torch

from bedside_export.ct_models import L3UNet
from bedside_export.ct_rules import RULES

RULE = RULES["l3-unet"]


def main() -> None:
    """Segment until standard input ends."""
    weights, threads, labels_path = sys.argv[1:4]
    torch.set_num_threads(int(threads))
    state = torch.load(weights, weights_only=True)
    classes, bias = len(state["outc.conv.weight"]), "inc.double_conv.0.bias" in state
    model = L3UNet(1, classes, bias=bias)
    model.load_state_dict(state)
    model.eval()
    for line in sys.stdin:
        cpu, begin = time.process_time(), time.perf_counter()
        files = [pydicom.dcmread(path) for path in Path(line.rstrip("\n")).iterdir()]
        files.sort(key=lambda file: float(file.ImagePositionPatient[2]))
        volume = np.stack(
            [
                file.pixel_array.astype(np.float32) * float(file.RescaleSlope) + float(file.RescaleIntercept)
                for file in files
            ]
        )
        spent = {"read": time.perf_counter() - begin, "preprocess": 0.0, "inference": 0.0}
        labels = np.zeros(volume.shape, np.uint8)
        with torch.no_grad():
            for index, hu in enumerate(volume):
                start = time.perf_counter()
                image = torch.from_numpy((np.clip(hu, RULE.low, RULE.high) - RULE.mean) / RULE.std).float()
                prepared = time.perf_counter()
                labels[index] = model(image[None, None]).argmax(1)[0].numpy()
                spent["preprocess"] += prepared - start
                spent["inference"] += time.perf_counter() - prepared
        start = time.perf_counter()
        height, width = files[0].PixelSpacing
        gap = float(files[1].ImagePositionPatient[2]) - float(files[0].ImagePositionPatient[2])
        volumes = np.bincount(labels.ravel(), minlength=classes) * (height * width * gap / 1000)
        measured = time.perf_counter()
        np.savez_compressed(labels_path, labels=labels)
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
