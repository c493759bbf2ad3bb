"""The training side of bedside: networks become bundles here. Needs torch; the runtime never imports it.

    weights   checkpoint files, read without running what is in them
    models    torchxrayvision's DenseNet, and the severity network made of it
    heads     from features to clinical scores: published coefficients
    fitting   from features to clinical scores: fitted to a table of scores
    onnx      PyTorch network -> one self-contained ONNX file
    golden    test pictures, from the phantom
    parity    PyTorch against every engine, in score units
    writer    all of it into one bundle, or into none
    card      the model card
    cli       ``bedside-export``

Not for clinical use.
"""

from __future__ import annotations
