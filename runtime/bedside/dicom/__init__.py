"""Reading DICOM: the only package that does.

    source      the file: meta information, header, where the pixel data lies
    elements    data elements, attribute by attribute
    header      what the file says of itself
    occasion    when it was taken, and whether two are of one patient
    layout      rows, columns and bits, checked
    pixels      stored values, decoded
    grayscale   LUTs, windows and inversion, as `bedside.rendering` takes them
    orientation spacing, and putting a picture upright

    and for a CT, from files to a volume:

    archive     the files of a folder, of a zip of one, or one alone
    slices      what each file says of its slices; frames, in a file of many
    catalogue   which series there are, and which to read
    selection   the slices of one stack
    order       from the feet to the head, each place once
    geometry    their distances, tilt and axes: the grid; gaps, where some are missing
    ledger      what was found, what was decided, and how wrong a volume may be for it
    hounsfield  stored values to HU
    series      decoding, in parallel, when asked for

Nothing read here reaches a log, a warning or a message: no patient data, and no name of a file.
"""

from __future__ import annotations

import os

from bedside.dicom.catalogue import SeriesInfo, list_series
from bedside.dicom.grayscale import read_pipeline
from bedside.dicom.header import make_header
from bedside.dicom.layout import read_layout
from bedside.dicom.occasion import Marks, Occasion, Patient, read_occasion
from bedside.dicom.orientation import put_upright, read_spacing
from bedside.dicom.pixels import read_pixels
from bedside.dicom.series import DicomSeries, read_series
from bedside.dicom.source import is_dicom, read_source
from bedside.files import open_input
from bedside.radiograph import Header, Radiograph
from bedside.rendering import render

__all__ = [
    "DicomSeries",
    "Marks",
    "Occasion",
    "Patient",
    "SeriesInfo",
    "is_dicom",
    "list_series",
    "read_header",
    "read_occasion",
    "read_radiograph",
    "read_series",
]


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
