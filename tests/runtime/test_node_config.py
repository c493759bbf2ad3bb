"""``node.toml``: what is wrong is named, with the table that it stands in."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from bedside.bundle import Bundle
from bedside.errors import InputError, MissingExtraError
from bedside.node.config import MAX_BYTES, Config, Limits, Peer, read_config

if sys.version_info < (3, 11):
    pytest.importorskip("tomli", reason="needs the extra 'node'")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "packaging" / "systemd" / "node.toml"
GOOD = """
spool = "spool"
deadline_s = 120

[receiver]
ae_title = "NODE"
allow = [{ ae_title = "CT1", address = "10.1.0.7" }, { ae_title = "PACS", address = "10.2.0.0/16" }]
limits = { associations = 3 }

[[watch]]
folder = "in"

[[rules]]
name = "ct"
bundle = "ct-opacity-lite"
modality = ["CT"]
destinations = ["pacs"]

[[rules]]
name = "rest"
bundle = "./other"

[destinations.pacs]
ae_title = "PACS"
host = "pacs.example.org"
"""


def read(folder: Path, text: str | bytes) -> Config:
    path = folder / "node.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_config(path)


def problem(folder: Path, text: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, text)
    assert caught.value.code == "bad-config"
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300
    assert str(folder) not in caught.value.message
    return caught.value.message


def test_reads_what_it_is_told_and_fills_in_the_rest(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert config.receiver is not None
    assert config.receiver.allow == (Peer("CT1", "10.1.0.7"), Peer("PACS", "10.2.0.0/16"))
    assert config.receiver.limits == Limits(associations=3)
    assert [rule.name for rule in config.rules] == ["ct", "rest"]
    assert (config.deadline_s, config.tries, config.destinations["pacs"].port) == (120.0, 3, 104)
    assert type(config.deadline_s) is float
    assert config.health is None


def test_relative_paths_begin_at_the_folder_of_the_file(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert (config.spool, config.watch[0].folder) == (str(tmp_path / "spool"), str(tmp_path / "in"))
    assert [rule.bundle for rule in config.rules] == ["ct-opacity-lite", str(tmp_path / "other")]


def test_file_of_an_editor_that_writes_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbf" + GOOD.encode()).tries == 3


def test_example_beside_the_unit_is_accepted_and_names_bundles_that_are_built_in() -> None:
    config = read_config(EXAMPLE)
    assert [Bundle.open(rule.bundle).manifest.task for rule in config.rules] == ["cxr-severity", "ct-opacity"]
    assert config.receiver is not None
    assert config.health is not None


def test_example_shows_each_default_as_it_is(tmp_path: Path) -> None:
    """Lines such as ``# tries = 3   # comment`` are put in place, and change nothing."""
    lines = EXAMPLE.read_text("utf-8").splitlines()
    example, shown = False, 0
    for number, line in enumerate(lines):
        example = line.startswith("# Example.") or (example and bool(line))
        if line.startswith("# ") and not example and (" = " in line or line.startswith("# [")):
            lines[number] = line.removeprefix("# ")
            shown += 1
    assert shown > 15
    plain, full = read_config(EXAMPLE), read(tmp_path, "\n".join(lines))
    assert full == plain


def test_example_and_documentation_name_every_key() -> None:
    text = EXAMPLE.read_text("utf-8")
    keys = {name for kind in _kinds(Config) for name in kind.__slots__}
    assert {key for key in keys if key not in text} == set()


def _kinds(kind: Any) -> set[Any]:
    """A dataclass and all that its annotations name."""
    from typing import get_args, get_type_hints

    found = {kind}
    pending = list(get_type_hints(kind).values())
    while pending:
        hint = pending.pop()
        if dataclasses.is_dataclass(hint):
            found |= _kinds(hint)
        pending += get_args(hint)
    return found


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('spool = "spool"', "", "spool is missing"),
        ('spool = "spool"', 'spool = " "', "spool is empty"),
        ('spool = "spool"', 'spool = "spool"\nspol = 1', "'spol' is not a key"),
        ("deadline_s = 120", "deadline_s = 0", "deadline_s must be more than 0"),
        ("deadline_s = 120", 'deadline_s = "2 min"', "deadline_s must be a number, not text"),
        ("deadline_s = 120", "deadline_s = inf", "deadline_s must be a finite number"),
        ("deadline_s = 120", "deadline_s = 2026-01-01", "deadline_s must be a number, not a date or time"),
        ("deadline_s = 120", "grace_s = -1", "grace_s must not be negative"),
        ("deadline_s = 120", "tries = 0", "tries must be more than 0"),
        ("deadline_s = 120", "tries = 1.5", "tries must be an integer, not a number"),
        ("deadline_s = 120", "free_mib = 0", "free_mib must be more than 0"),
        ("deadline_s = 120", 'unmatched = "ignore"', "unmatched must be 'refuse' or 'drop'"),
        ("deadline_s = 120", "allow_root = 1", "allow_root must be a boolean, not an integer"),
        ("deadline_s = 120", "complete = { quiet_s = 0 }", "complete.quiet_s must be more than 0"),
        ("deadline_s = 120", "retention = { sent_h = -1 }", "retention.sent_h must not be negative"),
        ("deadline_s = 120", "health = { port = 0 }", "health.port 0 must be 1 to 65535"),
        (
            "deadline_s = 120",
            'health = { address = "localhost" }',
            "health.address 'localhost' is no IP address",
        ),
        ('"NODE"', '"NO\\\\DE"', "receiver.ae_title 'NO\\\\DE' must be 1 to 16 printable"),
        ('"NODE"', '"SEVENTEEN-LETTERS"', "receiver.ae_title 'SEVENTEEN-LETTERS' must be 1 to 16"),
        ('"NODE"', '"NODE"\nprot = 1', "receiver.'prot' is not a key"),
        ('"NODE"', '"NODE"\nport = 65536', "receiver.port 65536 must be 1 to 65535"),
        ('"NODE"', '"NODE"\naddress = "eth0"', "receiver.address 'eth0' is no IP address"),
        ('"NODE"', '"NODE"\ntls = { certificate = "a", key = "b" }', "receiver.tls.authority is missing"),
        (
            '"NODE"',
            '"NODE"\ntls = { certificate = "", key = "b", authority = "c" }',
            "receiver.tls.certificate is empty",
        ),
        ('"10.1.0.7"', '"10.1.0.700"', "receiver.allow[0].address '10.1.0.700' is no IP address"),
        ('"10.2.0.0/16"', '"10.2.0.0/33"', "receiver.allow[1].address '10.2.0.0/33' is no IP address"),
        ('"CT1"', '"  "', "receiver.allow[0].ae_title '  ' must be 1 to 16"),
        ('"CT1"', "1", "receiver.allow[0].ae_title must be text, not an integer"),
        ("associations = 3", "associations = 0", "receiver.limits.associations must be more than 0"),
        ("associations = 3", "pdu_bytes = 100", "receiver.limits.pdu_bytes must be 4096 to 16777216"),
        ("associations = 3", "idle_s = nan", "receiver.limits.idle_s must be a finite number"),
        ('folder = "in"', 'folder = "in"\nsettle_s = -1', "watch[0].settle_s must not be negative"),
        ('folder = "in"', 'folder = ""', "watch[0].folder is empty"),
        ('folder = "in"', 'folder = "spool/in"', "watch[0].folder and spool lie in each other"),
        ('folder = "in"', 'folder = "."', "watch[0].folder and spool lie in each other"),
        ('folder = "in"', 'folder = "in"\n[[watch]]\nfolder = "in/2"', "watch[1].folder lies in another one"),
        ('name = "rest"', 'name = "ct"', "rules[1].name 'ct' is that of another rule"),
        ('name = "rest"', 'name = ""', "rules[1].name must have 1 to 64 characters"),
        ('"ct-opacity-lite"', '""', "rules[0].bundle is empty"),
        ('modality = ["CT"]', 'modality = "CT"', "rules[0].modality must be a list, not text"),
        ('modality = ["CT"]', 'backend = "fastest"', "rules[0].backend must be one of auto, onnxruntime"),
        ('modality = ["CT"]', 'precision = "fp8"', "rules[0].precision must be one of fp32"),
        (
            'modality = ["CT"]',
            'series_description = "lung("',
            "rules[0].series_description is no regular expression (missing ), unterminated subpattern)",
        ),
        (
            'modality = ["CT"]',
            'study_description = "a{99999999999}"',
            "rules[0].study_description is no regular",
        ),
        ('["pacs"]', '["archive"]', "rules[0].destinations names 'archive', which is not among destinations"),
        ('["pacs"]', '["pacs", "pacs"]', "rules[0].destinations names one twice"),
        ("[destinations.pacs]", '[destinations."p/acs"]', "'p/acs' must have 1 to 64 letters"),
        ('ae_title = "PACS"\nhost', "host", "destinations['pacs'].ae_title is missing, which a host needs"),
        ('host = "pacs.example.org"', "", "destinations['pacs']: it has to have either host"),
        ('host = "pacs.example.org"', 'host = " "', "destinations['pacs'].host is empty"),
        (
            'host = "pacs.example.org"',
            'host = "a"\nport = -1',
            "destinations['pacs'].port -1 must be 1 to 65535",
        ),
        (
            'host = "pacs.example.org"',
            'host = "a"\ntries = 0',
            "destinations['pacs'].tries must be more than 0",
        ),
        (
            'host = "pacs.example.org"',
            'host = "a"\ntoken_file = "t"',
            "destinations['pacs'].token_file is for a url",
        ),
        (
            'host = "pacs.example.org"',
            'host = "a"\nurl = "https://b"',
            "destinations['pacs']: it has to have either",
        ),
        (
            'host = "pacs.example.org"',
            'url = "https://a"',
            "destinations['pacs'].ae_title is for a host, not for a url",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_table(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in GOOD
    assert message in problem(tmp_path, GOOD.replace(before, after, 1))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('url = "ftp://a"', "url must begin with https:// or http:// and a host"),
        ('url = "https:///dicom-web"', "url must begin with"),
        ('url = "https://me:word@a"', "url must have no user"),
        ('url = "https://a/?x=1"', "url must have no user, query or fragment"),
        ('url = "https://a:99999"', "url is none"),
        ('url = "http://a"\ntls = { certificate = "a", key = "b", authority = "c" }', "tls needs a url"),
    ],
)
def test_url_of_a_destination_is_checked(tmp_path: Path, keys: str, message: str) -> None:
    told = problem(tmp_path, GOOD.partition("[destinations.pacs]")[0] + f"[destinations.pacs]\n{keys}\n")
    assert f"destinations['pacs'].{message}" in told
    assert "word" not in told


def test_nothing_to_run_and_nobody_to_come_in_are_told(tmp_path: Path) -> None:
    assert "rules is missing" in problem(tmp_path, 'spool = "s"\n[receiver]\n')
    assert "rules is empty" in problem(tmp_path, 'spool = "s"\nrules = []\n[receiver]\n')
    told = problem(tmp_path, 'spool = "s"\nrules = [{ name = "a", bundle = "b" }]\n')
    assert "neither receiver nor watch is there" in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("spool = \n", "line 1"),
        ("spool = 1\nspool = 2\n", "line 2"),
        (b"spool = '\xff'\n", "utf-8"),
        ("spool = " + "[" * 100_000, "nested too deep"),
        ("#" * (MAX_BYTES + 1), "over 1 MiB"),
    ],
)
def test_malformed_file_is_told(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert message in problem(tmp_path, content)


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_config(tmp_path / "node.toml")
    assert caught.value.code == "not-found"


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="Python reads TOML itself since 3.11")
def test_missing_tomli_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomli", None)
    with pytest.raises(MissingExtraError, match=r"bedside\[node\]"):
        read(tmp_path, GOOD)
