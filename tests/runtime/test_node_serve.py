"""``bedside serve`` as a process of its own: objects in, results out, and what it does when it is ended or killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pydicom
import pytest

from bedside.errors import OutputError
from bedside.node.look import Look
from bedside.node.service import Node
from bedside.node.spool import QUEUE
from command_line import command, environment, run
from made_node import CANARY, PATIENCE_S, until, write_picture
from made_peers import TITLE, StorePeer
from received_node import DX, LEAVES_BUFFERS
from served_node import find_ports
from tiny_bundle import make_bundle

pynetdicom = pytest.importorskip("pynetdicom", reason="needs the extra node")
pytest.importorskip("highdicom", reason="needs the extra dicom")

pytestmark = LEAVES_BUFFERS
SR = "1.2.840.10008.5.1.4.1.1.88.34"


@dataclass
class Served:
    """A node of a test, and its folder."""

    folder: Path
    destination: int
    port: int
    health: int
    process: subprocess.Popen[bytes] | None = None
    log: IO[bytes] | None = None

    def write(self, **changes: str) -> Path:
        """Write ``node.toml``; ``changes`` replace lines that begin with their name."""
        lines = {
            "spool": 'spool = "spool"',
            "free_mib": "free_mib = 1",
            "root": "allow_root = true",
            "grace": "grace_s = 5",
            "deadline": "deadline_s = 60",
            "receiver": f'[receiver]\nport = {self.port}\nallow = [{{ ae_title = "SCU", address = "127.0.0.1" }}]',
            "watch": '[[watch]]\nfolder = "in"\nsettle_s = 0.1',
            "health": f"[health]\nport = {self.health}",
            "destination": f'[destinations.pacs]\nhost = "127.0.0.1"\nae_title = "{TITLE}"\n'
            f"port = {self.destination}\nfirst_wait_s = 0.2\nlongest_wait_s = 0.5",
            "rules": '[[rules]]\nname = "xray"\nbundle = "tiny"\nmodality = ["DX", "CR"]\ndestinations = ["pacs"]',
        }
        path = self.folder / "node.toml"
        path.write_text("\n".join({**lines, **changes}.values()))
        return path

    def start(self, code: str | None = None) -> None:
        """Start it, and wait until it is ready; ``code`` runs first, in its process."""
        self.log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            command("serve", "--config", self.folder / "node.toml", "--verbose", code=code),
            stdout=self.log,
            stderr=self.log,
            stdin=subprocess.DEVNULL,
            env=environment(),
        )
        until(lambda: self.ask("ready") == 200 or self.ended())

    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def end(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(sign)
        code = self.process.wait(PATIENCE_S)
        if self.log is not None:
            self.log.close()
        return code

    def ask(self, what: str) -> int:
        """Status of its health; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/{what}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def worker(self) -> int:
        """Number of its engine's process."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def states(self) -> list[str]:
        with Look(self.folder / "spool" / QUEUE) as queue:
            return [study.state for study in queue.studies()]

    def store(self, *paths: Path) -> list[int]:
        entity = pynetdicom.AE("SCU")
        entity.add_requested_context(DX)
        association = entity.associate("127.0.0.1", self.port, ae_title="BEDSIDE")
        assert association.is_established
        statuses = [association.send_c_store(pydicom.dcmread(path)).Status for path in paths]
        association.release()
        return statuses


@contextmanager
def serving(folder: Path, destination: int, *, code: str | None = None, **changes: str) -> Iterator[Served]:
    node = Served(folder, destination, find_ports(1)[0], find_ports(1)[0])
    make_bundle(folder / "tiny")
    (folder / "in").mkdir()
    node.write(**changes)
    node.start(code)
    try:
        yield node
    finally:
        if not node.ended():
            node.end(signal.SIGKILL)


def reports(peer: StorePeer) -> list[str]:
    """SOP Instance UIDs of the reports that a destination took."""
    found = []
    for uid, data in peer.received:
        dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data), force=True)
        found += [uid] if dataset.Modality == "SR" else []
    return found


def test_xray_comes_in_and_its_results_go_out_without_a_trace_of_the_patient(tmp_path: Path) -> None:
    with StorePeer() as peer, serving(tmp_path, peer.port) as node:
        assert node.store(write_picture(tmp_path / "a.dcm")) == [0]
        write_picture(tmp_path / "in" / f"{CANARY}.dcm", 2)
        write_picture(tmp_path / "in" / "lateral.dcm", 3, ViewPosition="LL")
        until(lambda: node.states() == ["sent"] * 3)
        assert len(peer.received) == 3 + 3 + 1
        studies = {
            str(pydicom.dcmread(pydicom.filebase.DicomBytesIO(data), force=True).StudyInstanceUID)
            for _, data in peer.received
        }
        assert studies == {"1.2.1", "1.2.2", "1.2.3"}
        told = node.metrics()
        assert 'bedside_node_runs_total{status="refused"} 1.0' in told
        assert node.ask("live") == 200
        assert node.end() == 0
    told += (tmp_path / "log").read_text()
    told += "".join(path.read_text() for path in (tmp_path / "spool" / "audit").glob("*.jsonl"))
    told += "".join(str(path.relative_to(tmp_path / "spool")) for path in (tmp_path / "spool").rglob("*"))
    for each in (CANARY, "1.2.1", "1.2.2", "1.2.3"):
        assert each not in told
    assert re.search("study [23], rule xray: refused .* \\[wrong-view\\]", told)


def test_killed_nodes_study_has_one_result_at_the_destination(tmp_path: Path) -> None:
    with StorePeer(holds=True) as peer, serving(tmp_path, peer.port) as node:
        assert (
            node.store(*(write_picture(tmp_path / f"{number}.dcm", number) for number in (1, 2, 3)))
            == [0] * 3
        )
        until(peer.reached.is_set)
        node.end(signal.SIGKILL)
        peer.hold.set()
        peer.holds = False
        node.start()
        until(lambda: node.states() == ["sent"] * 3)
        assert node.end() == 0
        assert len(set(reports(peer))) == 3
        assert len({uid for uid, _ in peer.received}) == 9


def test_destination_that_is_away_gets_its_results_later(tmp_path: Path) -> None:
    port = find_ports(1)[0]
    with serving(tmp_path, port) as node:
        node.store(write_picture(tmp_path / "a.dcm"))
        until(lambda: "deliveries_total{" in node.metrics())
        assert node.states() == ["done"]
        assert node.ask("ready") == 200
        with StorePeer(port=port) as peer:
            until(lambda: node.states() == ["sent"])
            assert len(reports(peer)) == 1
        node.end()


def test_sigterm_gives_a_study_back_that_does_not_end(tmp_path: Path) -> None:
    with StorePeer() as peer, serving(tmp_path, peer.port, grace="grace_s = 0") as node:
        worker = node.worker()
        os.kill(worker, signal.SIGSTOP)  # it hangs
        node.store(write_picture(tmp_path / "a.dcm"))
        until(lambda: node.states() == ["running"])
        assert node.end() == 0
        assert node.states() == ["ready"]
        node.start()
        until(lambda: node.states() == ["sent"])
        node.end()


def test_killed_worker_costs_a_try_and_no_result(tmp_path: Path) -> None:
    with StorePeer() as peer, serving(tmp_path, peer.port) as node:
        worker = node.worker()
        os.kill(worker, signal.SIGSTOP)
        node.store(write_picture(tmp_path / "a.dcm"))
        until(lambda: node.states() == ["running"])
        os.kill(worker, signal.SIGKILL)
        until(lambda: node.states() == ["sent"])
        assert "worker_restarts_total 2.0" in node.metrics()
        assert 'runs_total{status="again"} 1.0' in node.metrics()
        node.end()


HEAR = """
import sys

def hear(event, told):
    if event in ("socket.connect", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.getaddrinfo"):
        with open(LOG, "a") as log:
            print(event, [each for each in told if not hasattr(each, "fileno")], file=log)

sys.addaudithook(hear)
"""


def test_node_connects_to_its_destinations_alone_and_starts_its_worker_alone(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    code = HEAR.replace("LOG", repr(str(heard)))
    with StorePeer() as peer, serving(tmp_path, peer.port, code=code) as node:
        node.store(write_picture(tmp_path / "a.dcm"))
        until(lambda: node.states() == ["sent"])
        assert node.end() == 0
    events = heard.read_text().splitlines()
    connected = [line for line in events if line.startswith("socket.connect")]
    assert set(connected) == {f"socket.connect [('127.0.0.1', {peer.port})]"}
    named = [line for line in events if line.startswith("socket.getaddrinfo")]
    assert [line for line in named if "'127.0.0.1'" not in line] == []
    (started,) = [line for line in events if not line.startswith("socket.")]
    assert started.startswith("subprocess.Popen")
    assert "bedside.node.worker" in started


class TestStarting:
    def told(self, folder: Path, **changes: str) -> tuple[int, str]:
        make_bundle(folder / "tiny")
        node = Served(folder, 104, find_ports(1)[0], find_ports(1)[0])
        done = run("serve", "--config", node.write(**changes), "--check")
        return done.returncode, done.stderr

    def test_check_says_that_all_can_be_used(self, tmp_path: Path) -> None:
        code, told = self.told(tmp_path)
        assert (code, told) == (0, "the configuration, its bundles and engines can be used\n")

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"spool": 'spol = "x"'}, "'spol' is not a key"),
            ({"free_mib": 'free_mib = "much"'}, "free_mib must be a number"),
            ({"rules": ""}, "rules is missing"),
            ({"rules": '[[rules]]\nname = "x"\nbundle = "nowhere"'}, "bundle of rule 'x'"),
            ({"rules": '[[rules]]\nname = "x"\nbundle = "tiny"\nbackend = "abacus"'}, "rules[0].backend"),
            ({"rules": '[[rules]]\nname = "x"\nbundle = "tiny"\ndestinations = ["attic"]'}, "'attic'"),
            ({"root": "allow_root = "}, "can't be used"),
        ],
        ids=["wrong key", "wrong type", "no rules", "no bundle", "no engine", "no destination", "no TOML"],
    )
    def test_wrong_configuration_is_named(self, tmp_path: Path, changes: dict[str, str], said: str) -> None:
        code, told = self.told(tmp_path, **changes)
        assert code == 2
        assert said in told
        assert told.count("\n") == 1
        assert "Traceback" not in told

    def test_root_has_to_be_allowed(self, tmp_path: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("runs as nobody special")
        code, told = self.told(tmp_path, root="")
        assert code == 2
        assert "runs as root" in told

    def test_second_node_on_a_spool_is_told(self, tmp_path: Path) -> None:
        with StorePeer() as peer, serving(tmp_path, peer.port) as node:
            done = run("serve", "--config", tmp_path / "node.toml")
            assert done.returncode == 2
            assert "another node holds this spool" in done.stderr
            assert node.ask("ready") == 200
            node.end()

    def test_port_in_use_is_told_and_ends_it(self, tmp_path: Path) -> None:
        make_bundle(tmp_path / "tiny")
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            held.listen()
            node = Served(tmp_path, 104, held.getsockname()[1], find_ports(1)[0])
            done = run("serve", "--config", node.write())
        assert done.returncode == 2
        assert f"port {node.port} can't be listened on" in done.stderr
        assert "Traceback" not in done.stderr


def test_node_that_can_not_end_in_order_lets_go_of_its_spool() -> None:
    closed: list[bool] = []

    class Stuck(Node):
        def __init__(self) -> None:
            self._stack = ExitStack()
            self._stack.callback(closed.append, True)

        def stop(self) -> None:
            raise OutputError("disk-full", "no space")

    with pytest.raises(OutputError), Stuck():
        pass
    assert closed == [True]


def test_queue_commands_work_beside_a_running_node(tmp_path: Path) -> None:
    with StorePeer() as peer, serving(tmp_path, peer.port) as node:
        node.store(write_picture(tmp_path / "a.dcm"))
        until(lambda: node.states() == ["sent"])
        done = run("queue", "list", "--config", tmp_path / "node.toml", "--json")
        assert json.loads(done.stdout.splitlines()[0])["state"] == "sent"
        done = run(
            "queue", "purge", "--sent", "--older-than", "1ms", "--yes", "--config", tmp_path / "node.toml"
        )
        assert done.returncode == 0, done.stderr
        assert node.states() == []
        assert not list((tmp_path / "spool" / "images").iterdir())
        node.store(write_picture(tmp_path / "a.dcm"))
        until(lambda: node.states() == ["sent"])
        assert len({uid for uid, _ in peer.received}) == 3  # run again, and the same results
        node.end()


@pytest.mark.slow
def test_node_that_is_killed_while_it_serves_loses_nothing(tmp_path: Path) -> None:
    """A sender that sends again what it was not told success for, and a node that is killed at any moment."""
    chance = random.Random(7)  # noqa: S311 - no secret
    sent: set[int] = set()
    with StorePeer() as peer, serving(tmp_path, peer.port, grace="tries = 100") as node:
        for kill in range(20):
            deadline = time.monotonic() + chance.uniform(0.1, 2.0)
            while time.monotonic() < deadline:
                number = len(sent) + 1
                if node.store(write_picture(tmp_path / "a.dcm", number)) == [0]:
                    sent.add(number)
            node.end(signal.SIGKILL)
            node.start()
            assert not node.ended(), f"it did not start after kill {kill}"
        until(lambda: set(node.states()) == {"sent"})
        assert node.end() == 0
    assert len(node.states()) == len(sent) > 20
    assert len(set(reports(peer))) == len(sent)
    assert len({uid for uid, _ in peer.received}) == 3 * len(sent)
