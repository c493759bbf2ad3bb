"""CRC-32 of a whole from those of its parts, for parts of one length.

A CRC is linear over the field of two elements: to append n bytes is to multiply the register by x**(8 n) modulo
the polynomial, then to add the CRC of those bytes. (The identity behind zlib's ``crc32_combine``, which Python
does not offer.)
"""

from __future__ import annotations

from typing import Final

__all__ = ["Appender"]

POLYNOMIAL: Final = 0xEDB88320
"""Of CRC-32 (RFC 1952, section 8), its lowest power in the highest bit."""
_ONE: Final = 1 << 31
"""The polynomial 1, in that order of bits."""


class Appender:
    """Appends parts of one length.

    Args:
        length: Of each part, in bytes.
    """

    def __init__(self, length: int) -> None:
        power, square, bits = _ONE, _ONE >> 8, length  # x**0, x**8
        while bits:
            if bits & 1:
                power = _multiply(power, square)
            square = _multiply(square, square)
            bits >>= 1
        self._power = power

    def append(self, whole: int, part: int) -> int:
        """CRC-32 of what ``whole`` is that of, followed by what ``part`` is that of."""
        return _multiply(self._power, whole) ^ part


def _multiply(a: int, b: int) -> int:
    """Product of two polynomials, modulo `POLYNOMIAL`."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (POLYNOMIAL if b & 1 else 0)
    return product
