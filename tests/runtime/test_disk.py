from __future__ import annotations

import errno

import pytest

from bedside.disk import CACHE, OUTPUT, Wording, told
from bedside.errors import InputError, OutputError


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("wording", [OUTPUT, CACHE])
def test_a_full_disk_asks_for_room_whatever_is_written(number: int, wording: Wording) -> None:
    with (
        pytest.raises(OutputError, match=rf"^{wording.trouble} \(.+\); {wording.room}$") as caught,
        told(wording),
    ):
        raise OSError(number, "in the system's words", "Doe^Jane.dcm")
    assert caught.value.code == "disk-full"
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize(
    ("wording", "code"), [(OUTPUT, "output-not-writable"), (CACHE, "cache-not-writable")]
)
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO])
def test_other_trouble_asks_for_another_place(number: int, wording: Wording, code: str) -> None:
    match = rf"^{wording.trouble} \(.+\); {wording.otherwise}$"
    with pytest.raises(OutputError, match=match) as caught, told(wording):
        raise OSError(number, "in the system's words", "Doe^Jane.dcm")
    assert caught.value.code == code
    assert "Doe" not in str(caught.value)


def test_trouble_without_a_number_is_told_too() -> None:
    with pytest.raises(OutputError, match=r"can't be written \(an I/O error\)"), told():
        raise OSError("Doe^Jane.dcm")


def test_what_has_been_told_of_already_passes() -> None:
    first = OutputError("output-exists", "it is there already")
    with pytest.raises(OutputError) as caught, told():
        raise first
    assert caught.value is first
    with pytest.raises(InputError), told():
        raise InputError("not-readable", "no picture")


def test_what_is_no_trouble_of_the_disk_passes() -> None:
    with pytest.raises(ZeroDivisionError), told():
        raise ZeroDivisionError
