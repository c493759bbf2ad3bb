"""Which compressed DICOM can be read here: a small sample of each kind is decoded."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from bedside.doctor.check import Check, private
from bedside.doctor.packages import find_version, is_installed
from bedside.doctor.trials import try_items

__all__ = ["FAMILIES", "check_codecs"]


class _Family(NamedTuple):
    syntaxes: tuple[str, ...]
    """Transfer syntaxes, what follows `_ROOT`."""
    package: str
    """What decodes it; empty for bedside itself."""
    sample: dict[str, Any]
    """``frame``: 8 x 8 pixels, base64; ``corners``: its first and last sample."""


_ROOT: Final = "1.2.840.10008.1.2"
_FLAT: Final = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4R"
    "DgsLEBYQERMUFRUVDA8XGBYUGBIUFRT/"
)
FAMILIES: Final[dict[str, _Family]] = {
    "uncompressed": _Family(("", ".1", ".1.99", ".2"), "", {}),
    "RLE": _Family((".5",), "", {}),
    "JPEG": _Family(
        (".4.50",),
        "pillow",
        {
            "frame": _FLAT + "wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAACP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/"
            "2gAIAQEAAD8AO7//2Q==",
            "corners": (77, 77),
        },
    ),
    "JPEG 2000": _Family(
        (".4.90", ".4.91"),
        "pillow",
        {
            "frame": "/0//UQApAAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1IADAAAAAEAAwQEAAH/XAANQICI"
            "iJCIiJCIiJD/ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAABNAAH/k8f+DAYG"
            "KD/B/0AA5/4kBgRwRwRwOsD/AGj/YYCgDQL5qP9/Cz3+1H/AP2B4P/AAgCIYhA0+VZ8Dfmyrw4hEf//Z",
            "corners": (7, 63007),
        },
    ),
    "JPEG of 12 bits": _Family(
        (".4.51", ".4.53", ".4.55"),
        "imagecodecs",
        {
            "frame": _FLAT + "wQALDAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAABf/EABQQAQAAAAAAAAAAAAAAAAAAAAD/"
            "2gAIAQEAAD8ATf/Z",
            "corners": (2055, 2055),
        },
    ),
    "JPEG Lossless": _Family(
        (".4.57", ".4.70"),
        "imagecodecs",
        {
            "frame": "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALEAAIAAgBAREA/8QAFgABAQEAAAAAAAAAAAAAAAAACg0P/9oACAEBAAEA"
            "AMABn0PofQ+h9D6H0X0B9D6H0PofQ+h9F9AfQ+h9D6H0PofRfQH0PofQ+h9D6H0X0B9D6H0PofQ+h9F9AfQ+h9D6"
            "H0PofRfQH0PofQ+h9D6H0X0B9D6H0PofQ+h9H//Z",
            "corners": (7, 63007),
        },
    ),
    "JPEG-LS": _Family(
        (".4.80", ".4.81"),
        "imagecodecs",
        {
            "frame": "/9j/6AAgU1BJRkYAAgAAAQAAAAgAAAAIChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQAAgACAEBEQD/+AANAf//"
            "ABIAQwEUAED/2gAIAQEAAAAAQNfPfPfNfLfJfHfFAAGgH0HznzHynyHxn0AABnT8L8D777z7r7h84BzN9p9l9h9d"
            "9Z9U+YA5Y+m+k+i+g+e+cfKAclfMfLfKfJfIfHPkAOPPiviPhvhPgvgHxgHF3vnvXvHu3unuT4j/2Q==",
            "corners": (7, 63007),
        },
    ),
}
"""Name -> how it is read, as in `bedside.decoders`. The lossless samples are a ramp from 7 in steps of 1000, the others
flat."""
_FIXES: Final = {
    "imagecodecs": "pip install --upgrade 'bedside[codecs]'",
    "pillow": "pip install --force-reinstall --no-deps pillow",
}


def check_codecs() -> list[Check]:
    """Try each kind."""
    here = [
        name
        for name, each in FAMILIES.items()
        if each.package and (each.package != "imagecodecs" or is_installed("imagecodecs"))
    ]
    samples = {name: FAMILIES[name].sample for name in here}
    outcomes = try_items("codec", here, {"samples": samples})
    checks = []
    for name, family in FAMILIES.items():
        said = ", ".join(_ROOT + syntax for syntax in family.syntaxes)
        if not family.package:
            checks.append(Check("codecs", name, "ok", f"bedside itself; {said}"))
        elif name not in outcomes:
            text = f"needs imagecodecs, which is not installed; {said}"
            checks.append(Check("codecs", name, "missing", text, "pip install 'bedside[codecs]'"))
        elif (error := outcomes[name].error) is None:
            checks.append(
                Check("codecs", name, "ok", f"{family.package} {find_version(family.package)}; {said}")
            )
        else:
            text = private(
                f"{family.package} {find_version(family.package)} does not decode it ({error}); {said}"
            )
            checks.append(Check("codecs", name, "broken", text, _FIXES[family.package]))
    return checks
