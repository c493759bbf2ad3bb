"""Exports the network of a comparison as most people do: ``torch.onnx.export`` of the module as it is.

python plain_onnx.py cxr|ct WEIGHTS FILE HEIGHT WIDTH
"""

import sys
import warnings

import torch


def main() -> None:
    """Write the file, with the input ``image`` of one picture or slice."""
    kind, weights, path, height, width = sys.argv[1:6]
    state = torch.load(weights, weights_only=True)
    network: torch.nn.Module
    if kind == "cxr":
        import torchxrayvision

        network = torchxrayvision.models.DenseNet(
            weights=None, num_classes=18, in_channels=1, op_threshs=None, apply_sigmoid=False
        )
    else:
        from bedside_export.ct_models import L3UNet

        network = L3UNet(1, len(state["outc.conv.weight"]), bias="inc.double_conv.0.bias" in state)
    network.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 1, int(height), int(width)),),
            path,
            input_names=["image"],
            output_names=["logits"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )


if __name__ == "__main__":
    main()
