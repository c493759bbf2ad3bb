"""Each kind of bad input, through the command line: a stable code, one line, no score, and no harm to others."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bedside.errors import CODES
from command_line import draw, invoke
from dicom_files import make_dataset, write_dataset, write_pixels
from tiny_bundle import MODEL, Network, make_bundle, read_manifest, write_manifest

PIXELS = np.arange(96 * 80).reshape(96, 80) % 4096


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def stored(path: Path, data: bytes | None, **header: object) -> Path:
    dataset = make_dataset(96, 80, **header)
    if data is not None:
        dataset.PixelData = data
        dataset["PixelData"].VR = "OW"
    return write_dataset(path, dataset)


def compressed(path: Path, syntax: str, frame: bytes = b"\0\0") -> Path:
    return write_dataset(path, make_dataset(96, 80), syntax, frame)


def colour(path: Path) -> Path:
    planes = np.zeros((96, 80, 3), np.uint8)
    planes[..., 0] = 200
    Image.fromarray(planes).save(path, "PNG")
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


FULL = PIXELS.astype("<u2").tobytes()
MPEG2 = "1.2.840.10008.1.2.4.100"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_LS_FRAME = b"\xff\xd8\xff\xf7\0\x0b\x0c\0\x60\0\x50\x01\x01\x11\0\xff\xd9"
"""Start, frame header of 12 bits, 96 rows, 80 columns, one component (T.87, C.2.2), end."""

BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda path: path, "not-found"),
    "empty": (lambda path: written(path, b""), "empty-file"),
    "not DICOM": (lambda path: written(path, b"a letter, not a picture" * 20), "not-an-image"),
    "cut in the header": (
        lambda path: written(path, write_pixels(path, PIXELS).read_bytes()[:205]),
        "broken-dicom",
    ),
    "without pixels": (lambda path: stored(path, None), "no-pixels"),
    "truncated": (lambda path: stored(path, FULL[:-2000]), "truncated-pixels"),
    "cut in the pixels": (
        lambda path: written(path, write_pixels(path, PIXELS).read_bytes()[:-2000]),
        "truncated-pixels",
    ),
    "too much": (lambda path: stored(path, FULL + bytes(2000)), "excess-pixels"),
    "zero rows": (lambda path: stored(path, FULL, Rows=0), "bad-dimensions"),
    "absurd columns": (lambda path: stored(path, FULL, Rows=65535, Columns=65535), "bad-dimensions"),
    "unsupported syntax": (lambda path: compressed(path, MPEG2), "unsupported-syntax"),
    "CT": (lambda path: write_pixels(path, PIXELS, Modality="CT"), "wrong-modality"),
    "MR": (lambda path: write_pixels(path, PIXELS, Modality="MR"), "wrong-modality"),
    "lateral": (lambda path: write_pixels(path, PIXELS, ViewPosition="LL"), "wrong-view"),
    "knee": (lambda path: write_pixels(path, PIXELS, BodyPartExamined="KNEE"), "wrong-body-part"),
    "multi-frame": (lambda path: stored(path, FULL * 2, NumberOfFrames=2), "multi-frame"),
    "colour": (colour, "colour"),
    "constant": (lambda path: write_pixels(path, np.full((96, 80), 7)), "constant-image"),
    "broken PNG": (
        lambda path: written(path, draw(path.with_suffix(".png")).read_bytes()[:500]),
        "broken-image",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_with_its_code_and_harms_no_other(
    bundle: Path, tmp_path: Path, kind: str
) -> None:
    make, code = BAD[kind]
    good, bad = draw(tmp_path / "good.png"), make(tmp_path / "bad.dcm")
    alone = json.loads(invoke("score", "--bundle", bundle, "--json", good).stdout)
    done = invoke("score", "--bundle", bundle, "--json", good, bad, good)
    first, refused, last = (json.loads(line) for line in done.stdout.splitlines())
    assert done.exit_code == 1
    assert (refused["error"]["code"], refused["source"]) == (code, str(bad))
    assert refused["status"] in ("failed", "refused")
    assert refused["extent"] is refused["opacity"] is None
    assert refused["pathologies"] == {}
    message, *rest = done.stderr.splitlines()
    assert message == f"{bad}: {refused['error']['message']} [{code}]"
    assert [line.split(",")[0] for line in rest] == ["2 scored"]
    assert bad.name not in refused["error"]["message"]
    for record in (first, last):
        assert {**record, "timing_ms": None} == {**alone, "timing_ms": None}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_alone_prints_no_score(bundle: Path, tmp_path: Path, kind: str) -> None:
    make, code = BAD[kind]
    done = invoke("score", "--bundle", bundle, make(tmp_path / "bad.dcm"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.endswith(f"[{code}]\n")
    assert done.stderr.count("\n") == 1


def test_an_unsupported_syntax_that_an_extra_reads_names_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    done = invoke("score", "--bundle", bundle, compressed(tmp_path / "bad.dcm", JPEG_LS, JPEG_LS_FRAME))
    assert done.exit_code == 1
    assert "pip install 'bedside[codecs]'" in done.stderr
    assert done.stderr.endswith("[missing-extra]\n")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_or_infinity_out_of_a_network_is_no_score(tmp_path: Path, value: float) -> None:
    network = Network(bias=(value, 3.0))
    bundle = make_bundle(tmp_path / "spoilt", network=network)
    done = invoke("score", "--bundle", bundle, "--json", draw(tmp_path / "x.png"))
    record = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (record["status"], record["error"]["code"], record["extent"]) == ("failed", "not-finite", None)


def alter(bundle: Path) -> None:
    data = bytearray((bundle / MODEL).read_bytes())
    data[-1] ^= 1
    (bundle / MODEL).write_bytes(data)


def renew(bundle: Path) -> None:
    write_manifest(bundle, {**read_manifest(bundle), "schema": "bedside.bundle/2"})


@pytest.mark.parametrize(("change", "code"), [(alter, "bundle-altered"), (renew, "bundle-schema")])
def test_a_bundle_that_is_not_right_scores_nothing(
    tmp_path: Path, change: Callable[[Path], None], code: str
) -> None:
    bundle = make_bundle(tmp_path / "tiny")
    change(bundle)
    done = invoke("score", "--bundle", bundle, draw(tmp_path / "x.png"), "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(f"[{code}]\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_message_tells_of_the_patient(bundle: Path, tmp_path: Path) -> None:
    identity = {"PatientName": "Doe^Jane", "PatientID": "4711-0815", "PatientBirthDate": "19300102"}
    files = [stored(tmp_path / "a.dcm", FULL[:-2], **identity), stored(tmp_path / "b.dcm", FULL, **identity)]
    files.append(write_pixels(tmp_path / "c.dcm", PIXELS, Modality="CT", **identity))
    done = invoke("score", "--bundle", bundle, "--json", *files)
    assert not any(value in done.stdout + done.stderr for value in ("Doe", "Jane", "4711", "1930"))


def test_every_code_of_the_table_is_known() -> None:
    assert {code for _, code in BAD.values()} <= set(CODES)


def test_the_made_files_differ_from_a_good_one_by_their_defect_alone(bundle: Path, tmp_path: Path) -> None:
    done = invoke("score", "--bundle", bundle, "--json", write_pixels(tmp_path / "good.dcm", PIXELS))
    record: dict[str, Any] = json.loads(done.stdout)
    assert record["status"] == "ok"
