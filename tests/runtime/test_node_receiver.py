"""The Storage SCP, on the loopback: who gets in, and what is kept."""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from bedside.dicom.pixels import PROCESSES, RLE
from bedside.errors import InputError, NodeError
from bedside.node import syntaxes
from bedside.node.certificates import make_context
from bedside.node.config import Completion as Choice
from bedside.node.network import Destination
from bedside.node.network import Receiver as ReceiverChoice
from bedside.node.receiver import Receiver
from bedside.node.store import send_by_store
from bedside.node.syntaxes import list_syntaxes
from made_node import make_parts, until, write_picture, write_slice
from made_peers import Certificates, data_set, make_certificates
from received_node import (
    DX,
    EXPLICIT,
    LEAVES_BUFFERS,
    QUICK,
    associated,
    connecting,
    ends,
    listening,
    outcomes,
    rejection,
    store,
)

pynetdicom = pytest.importorskip("pynetdicom", reason="needs the extra node")

pytestmark = LEAVES_BUFFERS


class TestWelcome:
    def test_echo_is_answered(self, tmp_path: Path) -> None:
        with listening(tmp_path) as (_, receiver), associated(receiver) as association:
            assert association.send_c_echo().Status == 0

    def test_object_is_in_the_queue_when_its_sender_is_told_success(self, tmp_path: Path) -> None:
        path = write_picture(tmp_path / "x.dcm")
        with listening(tmp_path) as (parts, receiver):
            assert store(receiver, path) == [0]
            assert parts.states() == ["ready"]
            (name,) = parts.stored()
            assert pydicom.dcmread(parts.spool.root / name).PixelData == pydicom.dcmread(path).PixelData
            until(lambda: "released" in outcomes(parts))
            assert not list(parts.spool.incoming.iterdir())
            assert outcomes(parts) == ["accepted", "released"]

    def test_object_that_was_cut_short_is_replaced_by_the_whole_one(self, tmp_path: Path) -> None:
        whole, cut = write_picture(tmp_path / "x.dcm"), tmp_path / "cut.dcm"
        cut.write_bytes(whole.read_bytes()[:-1000])
        with listening(tmp_path) as (parts, receiver):
            node = Destination(ae_title="BEDSIDE", host="127.0.0.1", port=receiver.port)
            for path in (cut, whole):
                send_by_store([path], node, calling="SCU")
            (name,) = parts.stored()
            assert data_set(parts.spool.root / name) == data_set(whole)
            assert parts.states() == ["ready"]

    def test_rules_see_the_titles(self, tmp_path: Path) -> None:
        with listening(tmp_path) as (parts, receiver):
            store(receiver, write_picture(tmp_path / "x.dcm"))
            (event,) = [each for each in parts.events() if each["event"] == "received"]
            assert event["calling_ae"] == "SCU"

    def test_slices_of_two_associations_are_one_series(self, tmp_path: Path) -> None:
        with listening(tmp_path, choice=Choice(association_end=True)) as (parts, receiver):
            store(receiver, write_slice(tmp_path / "x.dcm", 1))
            until(lambda: parts.states() == ["ready"])
            store(receiver, write_slice(tmp_path / "x.dcm", 2))
            until(lambda: parts.states() == ["ready"])
            (study,) = parts.studies()
            assert study.instances == 2

    def test_every_transfer_syntax_that_can_be_decoded_is_accepted(self, tmp_path: Path) -> None:
        read = {
            *PROCESSES,
            RLE,
            EXPLICIT,
            "1.2.840.10008.1.2",
            "1.2.840.10008.1.2.1.99",
            "1.2.840.10008.1.2.2",
        }
        assert set(list_syntaxes()) == read
        with listening(tmp_path) as (_, receiver):
            for uid in read:
                entity = pynetdicom.AE("SCU")
                entity.add_requested_context(DX, [uid])
                association = entity.associate("127.0.0.1", receiver.port, ae_title="BEDSIDE")
                assert [str(each.transfer_syntax[0]) for each in association.accepted_contexts] == [uid]
                association.release()

    @pytest.mark.parametrize("syntax", list_syntaxes())
    def test_real_slice_arrives_as_it_was_sent(self, shared: Path, tmp_path: Path, syntax: str) -> None:
        path = shared / "data/dicom/ct-transfer-syntaxes" / f"{syntax}.dcm"
        if not path.exists():
            pytest.skip("no slice in this transfer syntax in ../shared")
        with listening(tmp_path) as (parts, receiver):
            there = Destination(ae_title="BEDSIDE", host="127.0.0.1", port=receiver.port)
            send_by_store([path], there, calling="SCU")
            (name,) = parts.stored()
            stored = parts.spool.root / name
            assert pydicom.filereader.read_file_meta_info(stored).TransferSyntaxUID == syntax
            assert data_set(stored) == data_set(path)

    def test_what_needs_an_extra_is_not_accepted_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(syntaxes, "is_available", lambda: False)
        assert EXPLICIT in list_syntaxes()
        assert "1.2.840.10008.1.2.4.70" not in list_syntaxes()  # JPEG Lossless


class TestRefusal:
    @pytest.mark.parametrize(
        ("calling", "called", "told"),
        [("OTHER", "BEDSIDE", (1, 1, 3)), ("SCU", "OTHER", (1, 1, 7))],
        ids=["calling", "called"],
    )
    def test_strange_titles_are_rejected(
        self, tmp_path: Path, calling: str, called: str, told: tuple[int, int, int]
    ) -> None:
        with (
            listening(tmp_path) as (parts, receiver),
            associated(receiver, calling=calling, called=called) as association,
        ):
            assert rejection(association) == told
            assert outcomes(parts) == ["calling-title" if calling == "OTHER" else "called-title"]

    def test_nearly_full_disk_rejects_for_now_and_service_resumes(self, tmp_path: Path) -> None:
        with listening(tmp_path, free_mib=1e12) as (parts, receiver):
            with associated(receiver) as association:
                assert rejection(association) == (2, 3, 2)
            assert any("nearly full" in problem for problem in receiver.problems())
            receiver._free_mib = 0.0
            assert receiver.problems() == []
            assert store(receiver, write_picture(tmp_path / "x.dcm")) == [0]
            assert parts.states() == ["ready"]

    def test_too_many_associations_are_rejected_for_now(self, tmp_path: Path) -> None:
        limits = replace(QUICK, associations=1)
        with listening(tmp_path, limits=limits) as (_, receiver), associated(receiver) as first:
            assert first.is_established
            with associated(receiver) as second:
                assert rejection(second) == (2, 3, 2)

    @pytest.mark.parametrize(("drop", "status"), [(False, 0x0124), (True, 0)])
    def test_object_that_no_rule_takes(self, tmp_path: Path, drop: bool, status: int) -> None:
        with listening(tmp_path, drop=drop) as (parts, receiver):
            assert store(receiver, write_picture(tmp_path / "x.dcm", Modality="MG")) == [status]
            assert (parts.states(), parts.stored()) == ([], set())

    def test_other_pixels_under_a_known_uid(self, tmp_path: Path) -> None:
        with listening(tmp_path) as (parts, receiver):
            first = write_picture(tmp_path / "x.dcm")
            other = write_picture(tmp_path / "y.dcm", pixels=np.ones((72, 80), np.uint16))
            assert store(receiver, first, first, other) == [0, 0, 0x0111]
            assert len(parts.stored()) == 1

    def test_port_in_use_is_told(self, tmp_path: Path) -> None:
        with (
            listening(tmp_path / "a") as (_, receiver),
            make_parts(tmp_path / "b") as parts,
        ):
            second = Receiver(
                ReceiverChoice(port=receiver.port),
                parts.spool,
                parts.intake,
                parts.completion,
                parts.chronicle,
                free_mib=0.0,
            )
            before = tempfile.tempdir
            with pytest.raises(NodeError, match=rf"port {receiver.port} can't be listened on"):
                second.start()
            assert tempfile.tempdir == before

    def test_end_of_the_node_rejects_for_now_and_aborts_what_is_left(self, tmp_path: Path) -> None:
        with listening(tmp_path) as (_, receiver), associated(receiver) as first:
            receiver.refuse()
            with associated(receiver) as second:
                assert rejection(second) == (2, 3, 1)
            receiver.stop(0.0)
            until(lambda: first.is_aborted)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


class TestTls:
    def test_objects_come_over_tls(self, tmp_path: Path, certificates: Certificates) -> None:
        with listening(tmp_path, tls=certificates.server) as (parts, receiver):
            context = make_context(certificates.client, server=False)
            with associated(receiver, tls=(context, "localhost")) as association:
                path = write_picture(tmp_path / "x.dcm", pixels=np.zeros((600, 600), np.uint16))
                assert association.send_c_store(pydicom.dcmread(path)).Status == 0
            assert parts.states() == ["ready"]

    def test_stranger_without_a_certificate_stays_out(
        self, tmp_path: Path, certificates: Certificates
    ) -> None:
        with listening(tmp_path, tls=certificates.server) as (_, receiver):
            context = ssl.create_default_context(cafile=certificates.client.authority)
            with associated(receiver, tls=(context, "localhost")) as association:
                assert not association.is_established
            with associated(receiver) as association:  # no TLS at all
                assert not association.is_established
            until(lambda: receiver.connections == 0)

    def test_handshake_that_does_not_come_holds_up_nobody(
        self, tmp_path: Path, certificates: Certificates
    ) -> None:
        with listening(tmp_path, tls=certificates.server) as (_, receiver), connecting() as raw:
            silent = raw(receiver)
            with associated(
                receiver, tls=(make_context(certificates.client, server=False), "localhost")
            ) as association:
                assert association.send_c_echo().Status == 0
            assert ends(silent)

    def test_unusable_certificate_is_told(self, tmp_path: Path, certificates: Certificates) -> None:
        with (
            pytest.raises(InputError, match="key"),
            listening(tmp_path, tls=replace(certificates.server, key=str(tmp_path / "none.pem"))),
        ):
            pass
