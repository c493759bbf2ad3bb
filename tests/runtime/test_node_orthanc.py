"""A real archive, Orthanc, takes the results: by C-STORE and STOW-RS, with and without TLS, once however often sent."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLosslessSV1

from bedside.errors import NodeError
from bedside.node.network import Tls
from bedside.node.store import send_by_store
from bedside.node.stow import send_by_stow
from bedside.sample import write_sample
from bedside.sample_ct import write_series as write_sample_series
from dicom_series import make_series, write_series
from made_dicom import SMALL, record_scan, record_xray, write_xray
from made_peers import HOST, Certificates, make_certificates
from orthanc import QUICK, TITLE, Archive, run_orthanc
from served_node import find_ports, make_config, serve_node

for package in ("highdicom", "pynetdicom", "urllib3"):
    pytest.importorskip(package, reason="needs the extra node")

WAYS = ("C-STORE", "STOW-RS")
PROPOSED: dict[str, list[str]] = {
    ExplicitVRLittleEndian: [],
    JPEGBaseline8Bit: ["-xy"],
    JPEGLosslessSV1: ["-xs"],
}
"""Options with which storescu proposes a transfer syntax."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["plain", "tls"])
def archive(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("orthanc") / request.param
    with run_orthanc(folder, certificates if request.param == "tls" else None) as running:
        yield running


def record_studies(folder: Path, number: int) -> tuple[list[Path], list[Path]]:
    """An X-ray and a CT, and what comes of them; their UIDs end in ``number``."""
    uids: dict[str, Any] = {
        "StudyInstanceUID": f"1.2.{number}.1",
        "SeriesInstanceUID": f"1.2.{number}.2",
        "PatientID": f"P{number}",
    }
    xray = write_xray(folder / "xray.dcm", SOPInstanceUID=f"1.2.{number}.3", **uids)
    slices = make_series(SMALL, number=number, StudyInstanceUID=f"1.3.{number}.1", PatientID=f"P{number}")
    series = write_series(folder / "series", slices)
    made, _ = record_xray(xray, folder / "1")
    segmented, _ = record_scan(series, folder / "2", labelmap=number % 2 == 0)
    return [xray, *sorted(series.iterdir())], [*made.values(), *segmented.values()]


def send(way: str, files: Sequence[Path], archive: Archive) -> None:
    if way == "C-STORE":
        send_by_store(files, archive.store, calling="BEDSIDE")
    else:
        send_by_stow(files, archive.web)


def storescu(archive: Archive, images: Sequence[Path]) -> None:
    """Send images as a modality does, by DCMTK."""
    by_syntax: dict[str, list[Path]] = {}
    for path in images:
        by_syntax.setdefault(read_file_meta_info(path).TransferSyntaxUID, []).append(path)
    for syntax, paths in by_syntax.items():
        run_dcmtk("storescu", archive, *PROPOSED[syntax], after=paths)


def findscu(archive: Archive, study: str, folder: Path) -> list[str]:
    """Modalities of the series of a study, as a workstation asks for them, by DCMTK."""
    folder.mkdir()
    keys = ["QueryRetrieveLevel=SERIES", f"StudyInstanceUID={study}", "SeriesInstanceUID", "Modality"]
    run_dcmtk(
        "findscu", archive, "-S", "-X", "-od", str(folder), *(part for key in keys for part in ("-k", key))
    )
    return [pydicom.dcmread(path, force=True).Modality for path in sorted(folder.iterdir())]


def run_dcmtk(name: str, archive: Archive, *options: str, after: Sequence[Path] = ()) -> None:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"needs {name} of Debian's dcmtk")
    called = ["-aet", "XRAY1", "-aec", TITLE, str(archive.store.host), str(archive.store.port)]
    told = [program, *options, *encode_tls(archive.store.tls), *called, *map(str, after)]
    subprocess.run(told, check=True, timeout=120, env=QUICK)


def encode_tls(tls: Tls | None) -> list[str]:
    return [] if tls is None else ["+tls", tls.key, tls.certificate, "+cf", tls.authority]


def referred(item: Dataset) -> set[str]:
    """SOP Instance UIDs that an object refers to."""
    found = set()
    for element in item:
        if element.keyword == "ReferencedSOPInstanceUID":
            found.add(str(element.value))
        elif element.VR == "SQ":
            for each in element.value:
                found |= referred(each)
    return found


@pytest.mark.parametrize("way", WAYS)
def test_results_arrive_whole_and_once_in_the_study_of_their_images(
    way: str, archive: Archive, tmp_path: Path
) -> None:
    number = 10 + WAYS.index(way)
    images, results = record_studies(tmp_path, number)
    before = archive.count()
    storescu(archive, images)
    for _ in range(2):
        send(way, results, archive)
    assert archive.count() == before + len(images) + len(results)
    held: dict[str, Any] = {each["SOPInstanceUID"]: each for each in archive.instances()}
    for path in results:
        sent = pydicom.dcmread(path)
        there = pydicom.dcmread(io.BytesIO(archive.content(held[sent.SOPInstanceUID]["ID"])))
        assert there == sent
        sources = referred(there) & {str(pydicom.dcmread(image).SOPInstanceUID) for image in images}
        assert sources
        assert {held[uid]["StudyInstanceUID"] for uid in sources} == {there.StudyInstanceUID}
        assert {held[uid]["PatientID"] for uid in sources} == {there.PatientID}


@pytest.mark.parametrize("archive", ["tls"], indirect=True)
def test_a_stranger_is_told_that_tls_failed(
    archive: Archive, certificates: Certificates, tmp_path: Path
) -> None:
    xray = write_xray(tmp_path / "xray.dcm")
    for tls in (certificates.stranger, None):
        with pytest.raises(NodeError):
            send_by_store([xray], replace(archive.store, tls=tls), calling="BEDSIDE")
    with pytest.raises(NodeError, match="destination failed"):
        send_by_stow([xray], replace(archive.web, tls=certificates.stranger))


# The whole way: a modality sends to the archive, the archive to the node, the node to the archive


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An X-ray and a CT series, of no patient."""
    folder = tmp_path_factory.mktemp("sources")
    write_sample(folder / "xray.dcm")
    write_sample_series(folder / "ct")
    return [folder / "xray.dcm", *sorted((folder / "ct").iterdir())[::4]]  # thick slices are fewer


@contextmanager
def run_node(folder: Path, archive: Archive, certificates: Certificates) -> Iterator[int]:
    """A node that takes from the archive, and sends X-rays' results by C-STORE and a CT's by STOW-RS; its port."""
    (port,) = find_ports(1)
    secure = archive.store.tls is not None
    receiver = f"""
port = {port}
allow = [{{ ae_title = "{TITLE}", address = "{HOST}" }}]
{write_tls("receiver.tls", certificates.server) if secure else ""}
"""
    destinations = f"""
[destinations.store]
ae_title = "{TITLE}"
host = "{HOST}"
port = {archive.store.port}
{write_tls("destinations.store.tls", certificates.client) if secure else ""}
[destinations.web]
url = "{archive.web.url}"
{write_tls("destinations.web.tls", certificates.client) if secure else ""}
"""
    with serve_node(folder, make_config(receiver, destinations, xray="store", ct="web")):
        yield port


def write_tls(table: str, tls: Tls) -> str:
    return f'[{table}]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\nauthority = "{tls.authority}"\n'


def has_report(archive: Archive, uid: str) -> bool:
    return any(each["Modality"] == "SR" for each in archive.results(uid))


def go_the_whole_way(
    archive: Archive, images: Sequence[Path], certificates: Certificates, folder: Path
) -> dict[str, list[str]]:
    """Send images to the archive, have it send them to a node, and wait for the results.

    Returns:
        Modality of a study -> modalities of its results, after making sure that they belong to it.
    """
    storescu(archive, images)
    by_study: dict[str, list[Dataset]] = {}
    for path in images:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        by_study.setdefault(header.StudyInstanceUID, []).append(header)
    with run_node(folder, archive, certificates) as port:
        archive.add_modality("node", "BEDSIDE", port)
        archive.ask("/modalities/node/echo", {})
        for headers in by_study.values():
            (place,) = archive.find(headers[0].SeriesInstanceUID)
            archive.ask("/modalities/node/store", {"Resources": [Path(place).name], "Timeout": 60})
        for uid in by_study:  # the report comes last
            archive.wait_for(partial(has_report, archive, uid))
    found = {}
    for uid, headers in by_study.items():
        results = archive.results(uid)
        for each in results:
            made = pydicom.dcmread(io.BytesIO(archive.content(each["ID"])))
            assert made.PatientID == headers[0].PatientID
            assert referred(made) & {header.SOPInstanceUID for header in headers}
        own = str(headers[0].Modality)
        found[own] = sorted(each["Modality"] for each in results)
        assert sorted(findscu(archive, uid, folder / own)) == sorted([own, *found[own]])
    return found


def test_images_go_to_the_node_and_results_come_back_to_their_study(
    archive: Archive, sample: list[Path], certificates: Certificates, tmp_path: Path
) -> None:
    found = go_the_whole_way(archive, sample, certificates, tmp_path / "node")
    assert found == {"DX": ["OT", "OT", "SR"], "CT": ["OT", "SEG", "SR"]}


@pytest.mark.slow
def test_real_images_go_the_same_way(
    archive: Archive, shared: Path, certificates: Certificates, tmp_path: Path
) -> None:
    images = [
        *sorted((shared / "data/dicom/cr").glob("1.2.*.dcm")),
        *sorted((shared / "data/ct/ricord-series").iterdir()),
    ]
    found = go_the_whole_way(archive, images, certificates, tmp_path / "node")
    assert found == {"CR": ["OT", "OT", "SR"], "CT": ["OT", "SEG", "SR"]}
