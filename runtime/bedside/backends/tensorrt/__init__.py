"""TensorRT: engines built from a bundle, kept in checked files, and run. One code for NVIDIA's two packages.

    full, rtx   the leaves: the packages ``tensorrt`` and ``tensorrt_rtx``, as a `Library` each
    library     what a package is and what it has
    recipe      what is to be built: precision, GPUs, shapes, workspace, DLA
    building    from a bundle's ONNX file to a plan, with its layers and the parser's errors named
    turing      float32 matrix products that TensorRT for RTX does not have on Turing, as products and sums
    inspection  which layers a plan has, and in which precision they compute
    enginefile  a plan in a file with a header that says what it is for, checked before TensorRT sees it
    store       the folder of such files
    site        the GPU that is here
    ahead       build for GPUs that are not here
    cuda        memory, streams and graphs, by NVIDIA's ``cuda-bindings``
    session     one profile of an engine, ready to run: buffers, one stream, a graph for each shape
    backend     the `bedside.backends.Backend`

A plan is code: whoever can write into the folder of engines decides what runs. The hashes in an engine's file find
damage and mix-ups, not malice.
"""

from __future__ import annotations
