"""Orthanc, a real archive, while a test needs one: of Debian's packages ``orthanc`` and ``orthanc-dicomweb``.

    with run_orthanc(folder) as archive:
        archive.receiver          host, port and AE title of its Storage SCP
        archive.instances()       what it holds

It runs on ports of its own, as the user of the test, with all that it keeps in ``folder``; the system's own service is
left alone. HTTPS is spoken by a proxy in front of it, as its makers advise: that of Debian 12 crashes when it does so
itself.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from bedside.node.network import Destination
from made_peers import HOST, Certificates, RawPeer
from served_node import find_ports

TITLE: Final = "ORTHANC"
PLUGIN: Final = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
QUICK: Final = {**os.environ, "TCP_NODELAY": "1"}
"""For programs of DCMTK, which else wait 40 ms and more with each object."""
START_S: Final = 60.0
"""Until it answers."""


@dataclass(frozen=True)
class Archive:
    """An Orthanc that runs."""

    store: Destination
    """Where it takes objects by C-STORE."""
    web: Destination
    """Where it takes objects by STOW-RS."""
    url: str
    """Of its REST API."""

    def ask(self, path: str, body: object = None, *, method: str | None = None) -> Any:
        """What its REST API answers: the JSON at a path, or to a body that is sent there."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", content, method=method)  # noqa: S310 - http, of ours
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the same
            said = answer.read()
        return json.loads(said) if said else None

    def instances(self, uid: str | None = None) -> list[dict[str, Any]]:
        """Attributes of each object, of all or of the study or series of that UID, and its number there as ``ID``."""
        if uid is None:
            numbers = self.ask("/instances")
        else:
            numbers = [each["ID"] for path in self.find(uid) for each in self.ask(f"{path}/instances")]
        return [{"ID": number, **self.ask(f"/instances/{number}/simplified-tags")} for number in numbers]

    def find(self, uid: str) -> list[str]:
        """Where what has this UID is."""
        request = urllib.request.Request(f"{self.url}/tools/lookup", uid.encode())  # noqa: S310 - http, of ours
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the same
            return [each["Path"] for each in json.loads(answer.read())]

    def results(self, uid: str) -> list[dict[str, Any]]:
        """Those of the study of that UID that bedside made."""
        return [each for each in self.instances(uid) if each.get("ContentQualification") == "RESEARCH"]

    def content(self, number: str) -> bytes:
        """An object's file."""
        request = urllib.request.Request(f"{self.url}/instances/{number}/file")  # noqa: S310 - as above
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the same
            read: bytes = answer.read()
        return read

    def count(self) -> int:
        """How many objects it holds."""
        return int(self.ask("/statistics")["CountInstances"])

    def wait_for(self, what: Callable[[], bool], *, seconds: float = 120.0) -> None:
        """Return when ``what`` is so."""
        until = time.monotonic() + seconds
        while not what():
            if time.monotonic() > until:
                raise TimeoutError(f"the archive holds {self.count()} objects")
            time.sleep(0.1)

    def add_modality(self, name: str, title: str, port: int) -> None:
        """Let it know somebody whom it may send to; with TLS, where it has that itself."""
        told = {"AET": title, "Host": HOST, "Port": port, "UseDicomTls": self.store.tls is not None}
        self.ask(f"/modalities/{name}", told, method="PUT")


@contextmanager
def run_orthanc(folder: Path, certificates: Certificates | None = None) -> Iterator[Archive]:
    """Start it; with ``certificates``, all that comes in shows one of their authority, over DICOM and over HTTP."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None or not PLUGIN.exists():
        pytest.skip("needs Orthanc with DICOMweb: Debian's orthanc and orthanc-dicomweb")
    folder.mkdir(parents=True)
    (folder / "db").mkdir()
    dicom_port, web_port = find_ports(2)
    options: dict[str, Any] = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [str(PLUGIN)],
        "DicomAet": TITLE,
        "DicomPort": dicom_port,
        "HttpPort": web_port,
        "DicomAlwaysAllowFind": True,
        "HttpDescribeErrors": True,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "UnknownSopClassAccepted": True,  # label maps, which are younger than it
        "StoreMD5ForAttachments": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    if certificates is not None:
        server = certificates.server
        options |= {
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": server.certificate,
            "DicomTlsPrivateKey": server.key,
            "DicomTlsTrustedCertificates": server.authority,
            "DicomTlsRemoteCertificateRequired": True,
        }
    (folder / "orthanc.json").write_text(json.dumps(options))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "orthanc.json")],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=QUICK,
        )
    url = f"http://{HOST}:{web_port}"
    try:
        wait_until_up(url, process, folder / "log")
        if certificates is None:
            store = Destination(ae_title=TITLE, host=HOST, port=dicom_port)
            yield Archive(store, Destination(url=f"{url}/dicom-web"), url)
        else:
            client = certificates.client
            store = Destination(ae_title=TITLE, host=HOST, port=dicom_port, tls=client)
            with RawPeer(partial(forward, web_port), tls=certificates.server) as proxy:
                web = Destination(url=f"https://{HOST}:{proxy.port}/dicom-web", tls=client)
                yield Archive(store, web, url)
    finally:
        process.kill()  # what it holds is of no more use
        process.wait()


def forward(port: int, connection: socket.socket) -> None:
    """Hand on what comes in to a port of this machine, and what that says back."""
    with socket.create_connection((HOST, port)) as inner:
        back = threading.Thread(target=pump, args=(inner, connection))
        back.start()
        pump(connection, inner)
        back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/system", timeout=10).close()  # noqa: S310 - as above
        except (OSError, urllib.error.URLError) as error:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"Orthanc does not run: {log.read_text()[-2000:]}") from error
            time.sleep(0.05)
        else:
            return
