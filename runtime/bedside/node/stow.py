"""Results, sent on by STOW-RS (PS3.18, 10.5). Not for clinical use."""

# ruff: noqa: PLC0415 - urllib3 is an extra

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from bedside.errors import InputError, MissingExtraError, NodeError
from bedside.files import open_input
from bedside.node.certificates import make_context, make_system_context
from bedside.node.failures import Stopped, StoppedError, UntakenError, describe, never
from bedside.node.network import Destination
from bedside.node.parcels import Parcel, open_parcels, read_pieces
from bedside.node.store import ALREADY_THERE, name_status

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

__all__ = ["send_by_stow"]

MAX_ANSWER: Final = 1 << 20
"""Bytes of an answer that are read."""
MAX_TOKEN: Final = 1 << 14
"""Bytes of a token."""
_FAILED, _TAKEN, _SOP, _REASON = "00081198", "00081199", "00081155", "00081197"
"""Failed SOP Sequence, Referenced SOP Sequence, Referenced SOP Instance UID, Failure Reason."""
_THERE: Final = frozenset({ALREADY_THERE, 45070})
"""Failure Reasons that mean that it is there already: of PS3.7, and of Microsoft's DICOM service."""


def send_by_stow(files: Sequence[Path], destination: Destination, *, stopped: Stopped = never) -> None:
    """Send objects in one request, in this order; returns when the destination says of each that it has it.

    The body is read from the files while it is sent. Redirects are not followed: they would take patients elsewhere. A
    200 alone is no proof: Referenced SOP Sequence is "required if one or more SOP Instances were successfully stored"
    (PS3.18, table I.1-1), so that an answer without it, an empty one too, is a failure. So is a 202 in which an object
    is missing. Warnings are success, and so is a Failure Reason that says that the object is there already. What was
    taken of a request that failed stays there, and sending it again under the same UIDs does no harm.

    Args:
        files: DICOM files.
        destination: With ``url``.
        stopped: Asked before each object.

    Raises:
        UntakenError: ``not-delivered``: the destination does not take one of these.
        NodeError: ``not-delivered``: it can't be reached, does not let us in, breaks off, does not answer in time, or
            answers with what is no answer.
        InputError: ``bad-config``: its certificates or its token can't be used.
        MissingExtraError: urllib3 is not installed.
        StoppedError: ``stopped`` said so, and not all were sent.
    """
    if destination.url is None:
        raise ValueError("the destination has no url")
    parcels = open_parcels(files)
    if not parcels:
        return
    boundary = f"bedside-{secrets.token_hex(16)}"
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    end = f"--{boundary}--\r\n".encode()
    length = sum(len(head) + parcel.size + len(b"\r\n") for parcel in parcels) + len(end)
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary="{boundary}"',
        "Content-Length": str(length),
        "Accept": "application/dicom+json",
        "Accept-Encoding": "identity",
        "User-Agent": "bedside",
        **_authorize(destination),
    }
    status, content = _post(destination, headers, _body(parcels, head, end, stopped))
    _judge(status, content, [parcel.sop for parcel in parcels])


def _body(parcels: Sequence[Parcel], head: bytes, end: bytes, stopped: Stopped) -> Iterator[bytes]:
    for parcel in parcels:
        if stopped():
            raise StoppedError
        yield head
        yield from read_pieces(parcel, 0)
        yield b"\r\n"
    yield end


def _authorize(destination: Destination) -> dict[str, str]:
    if destination.token_file is None:
        return {}
    try:
        with open_input(destination.token_file) as stream:
            token = stream.read(MAX_TOKEN + 1).decode("ascii").strip()
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(
            "bad-config", "token_file can't be read; give a file that holds the token alone"
        ) from error
    if not token.isprintable() or " " in token or not 0 < len(token) <= MAX_TOKEN:
        raise InputError("bad-config", "token_file holds no token; give a file that holds the token alone")
    return {"Authorization": f"Bearer {token}"}


def _post(destination: Destination, headers: Mapping[str, str], body: Iterator[bytes]) -> tuple[int, bytes]:
    """The answer: status and content."""
    try:
        import urllib3
    except ImportError as error:
        raise MissingExtraError.of("urllib3", "node", "sending results by STOW-RS") from error
    url = f"{destination.url}".rstrip("/") + "/studies"
    context = None
    if urlsplit(url).scheme == "https":
        context = (
            make_system_context() if destination.tls is None else make_context(destination.tls, server=False)
        )
    with urllib3.PoolManager(ssl_context=context) as pool:
        try:
            response = pool.request(
                "POST",
                url,
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=destination.timeout_s, read=destination.timeout_s),
                preload_content=False,
            )
            try:
                return response.status, _read(response, destination.timeout_s)
            finally:
                response.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise NodeError("not-delivered", f"the destination failed: {_describe(error)}") from error


def _read(response: BaseHTTPResponse, timeout_s: float) -> bytes:
    """The content, up to a byte over the longest that is taken, in the time that an answer may take."""
    until = time.monotonic() + timeout_s
    content = b""
    while more := response.read1(MAX_ANSWER + 1 - len(content), decode_content=False):
        content += more
        if len(content) > MAX_ANSWER:
            break
        if time.monotonic() > until:
            raise TimeoutError
    return content


def _describe(error: BaseException) -> str:
    """What happened, by the error of the connection that urllib3 tells of."""
    from urllib3.exceptions import TimeoutError as TimedOutError

    cause: BaseException | None = error
    while cause is not None:
        found = next((each for each in (cause, *cause.args) if isinstance(each, OSError)), None)
        if found is not None:
            return describe(found)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, TimedOutError):
        return describe(TimeoutError())
    return "the connection broke, or what it answers is no HTTP; check the url, and what runs there"


def _judge(status: int, content: bytes, wanted: Sequence[str]) -> None:
    """Raise an error where the answer does not say of each object that it is there."""
    if 300 <= status < 400:
        raise _failure(status, "it redirects, which is not followed; give the url that it redirects to")
    if status in (401, 403):
        raise _failure(status, "it does not let us in; check token_file, and our certificate")
    if status in (400, 413, 415, 422):
        raise _failure(status, "it does not take the request; look at its log", UntakenError)
    if status not in (200, 202, 409):
        raise _failure(status, "look at its log, and check the url")
    try:
        taken, failed = _parse(content)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise _failure(
            status,
            "its answer is no Store Instances Response (PS3.18, annex I) in JSON; check the url, or use C-STORE",
        ) from None  # a text of theirs may quote values
    there = taken | {sop for sop, reason in failed.items() if reason in _THERE}
    missing = [sop for sop in wanted if sop not in there]
    if not missing:
        return
    reasons = sorted({reason for sop, reason in failed.items() if sop in missing})
    told = ", ".join(name_status(reason) for reason in reasons)
    message = f"the destination answered with status {status} and did not store {len(missing)} of {len(wanted)} objects"
    if not reasons:
        raise NodeError("not-delivered", f"{message}, without a reason; look at its log")
    kind = NodeError if all(reason >> 8 == 0xA7 for reason in reasons) else UntakenError
    raise kind("not-delivered", f"{message}: {told}; look at its log, or send these results elsewhere")


def _parse(content: bytes) -> tuple[set[str], dict[str, int]]:
    """SOP Instance UIDs that were stored; those that were not, with the reason."""
    if len(content) > MAX_ANSWER:
        raise ValueError("too long")
    answer = json.loads(content)
    if isinstance(answer, list):
        (answer,) = answer
    taken = {str(_value(item, _SOP)) for item in _items(answer, _TAKEN)}
    failed = {str(_value(item, _SOP)): int(_value(item, _REASON)) for item in _items(answer, _FAILED)}
    return taken, failed


def _items(answer: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return list(answer.get(tag, {}).get("Value", ()))


def _value(item: dict[str, Any], tag: str) -> Any:
    return item[tag]["Value"][0]


def _failure(status: int, what: str, kind: type[NodeError] = NodeError) -> NodeError:
    return kind("not-delivered", f"the destination answered with status {status}; {what}")
