"""Reading DICOM: the only package that does.

    source      the file: meta information, header, where the pixel data lies
    elements    data elements, attribute by attribute
    header      what the file says of itself
    layout      rows, columns and bits, checked
    pixels      stored values, decoded
    grayscale   LUTs, windows and inversion, as `bedside.rendering` takes them
    orientation spacing, and putting a picture upright

Nothing read here reaches a log, a warning or a message: no patient data, and no name of a file.
"""

from __future__ import annotations

import os

from bedside.dicom.grayscale import read_pipeline
from bedside.dicom.header import make_header
from bedside.dicom.layout import read_layout
from bedside.dicom.orientation import put_upright, read_spacing
from bedside.dicom.pixels import read_pixels
from bedside.dicom.source import is_dicom, read_source
from bedside.files import open_input
from bedside.radiograph import Header, Radiograph
from bedside.rendering import render

__all__ = ["is_dicom", "read_header", "read_radiograph"]


def read_header(path: str | os.PathLike[str]) -> Header:
    """What a DICOM file says of itself; no pixel is decoded, and mostly none is read.

    Any kind of DICOM object has a header: judging it is not this module's task.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``empty-file``, ``not-an-image``, ``broken-dicom``.
    """
    with open_input(path) as stream:
        return make_header(read_source(stream))


def read_radiograph(path: str | os.PathLike[str]) -> Radiograph:
    """One grey picture, as it is meant to be seen.

    Stored values pass the Modality LUT, the VOI LUT and the Presentation LUT in this order (PS3.4, N.2); see
    `bedside.rendering`. Whether the picture is a frontal chest X-ray is not judged here.

    Raises:
        InputError: The file can't be read as a picture: any of its codes.
        RefusedError: ``multi-frame``, ``colour``.
        MissingExtraError: The decoder is in the ``codecs`` extra, which is not installed.
    """
    with open_input(path) as stream:
        source = read_source(stream)
        layout = read_layout(source.dataset)
        stored = read_pixels(stream, source, layout)
    pipeline, choices = read_pipeline(source.dataset, layout, stored.bits)
    picture, doubts = render(stored.patterns, pipeline)
    spacing, distances = read_spacing(source.dataset)
    picture, spacing, turns = put_upright(picture, spacing, source.dataset)
    findings = (*stored.findings, *choices, *doubts, *distances, *turns)
    return Radiograph(picture, make_header(source), spacing, findings)
