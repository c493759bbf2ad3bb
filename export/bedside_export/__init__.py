"""The training side of bedside: networks become bundles here. Needs torch; the runtime never imports it.

    weights   checkpoint files, read without running what is in them
    models    torchxrayvision's DenseNet, and the severity network made of it
    heads     from features to clinical scores: published coefficients
    fitting   from features to clinical scores: fitted to a table of scores
    severity  X-ray: what the bundle says of itself
    golden    X-ray: test pictures, from the phantom
    parity    X-ray: PyTorch against every engine, in score units

    ct_models, ct_checkpoint    CT: networks that segment slices, and their weights
    ct_rules, ct_card           CT: what the bundle says of itself
    ct_golden                   CT: test slices, from the phantom
    ct_parity, tissue_report    CT: PyTorch against every engine, in Dice and mL
    ct_skip                     CT: what leaving tiles out costs
    ct_opacity                  CT: all of it

    onnx      PyTorch network -> one self-contained ONNX file
    draft     what a bundle is to say
    writer    all of it into one bundle, or into none
    cli       ``bedside-export``

Not for clinical use.
"""

from __future__ import annotations
