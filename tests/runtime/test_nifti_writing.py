"""Writing NIfTI: what other readers make of the files, and what is left where writing fails."""

from __future__ import annotations

import gzip
import resource
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.errors import OutputError
from bedside.nifti.checksum import Appender
from bedside.nifti.layout import Layout, find_layout
from bedside.nifti.reading import read_labels, read_nifti
from bedside.nifti.writing import NOT_READ, NiftiWriter
from bedside.scan import Grid

nib: Any = import_module("nibabel")  # typed in parts

SHAPE = (10, 12, 11)
RAS = np.diag([-1.0, -1, 1, 1])
LABELS = np.random.default_rng(0).integers(0, 5, SHAPE).astype(np.uint8)
TURN = nib.eulerangles.euler2mat(0.3, -0.2, 0.1)


def grid_of(change: npt.NDArray[np.float64] | None = None, shape: tuple[int, int, int] = SHAPE) -> Grid:
    """Voxels of 0.8 x 0.7 x 2.5 mm; ``change`` acts on LPS."""
    affine = np.array([[0.0, 0, 0.8, -20], [0, 0.7, 0, -30], [2.5, 0, 0, 40], [0, 0, 0, 1]])
    if change is not None:
        affine[:3, :3] = change @ affine[:3, :3]
    return Grid(shape, affine)


GRIDS = {
    "plain": grid_of(),
    "left-handed": grid_of(np.diag([1.0, 1, -1])),
    "half turn": grid_of(np.diag([-1.0, -1, 1])),
    "oblique": grid_of(TURN),
    "oblique left-handed": grid_of(TURN @ np.diag([-1.0, 1, 1])),
    "sheared": grid_of(np.array([[1, 0, 0], [0, 1, 0.3], [0, 0, 1]])),
    "sheared oblique": grid_of(TURN @ np.array([[1, 0, 0], [0, 1, -0.2], [0, 0, 1]])),
}
grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())


def write(path: Path, grid: Grid, values: npt.NDArray[Any] = LABELS, **options: Any) -> Path:
    with NiftiWriter(path, grid, **options) as writer:
        for index in np.random.default_rng(1).permutation(len(values)).tolist():
            writer.write(index, values[index])
    return path


@grids
def test_nibabel_reads_the_labels_in_their_place(tmp_path: Path, grid: Grid) -> None:
    read = nib.load(write(tmp_path / "a.nii.gz", grid))

    assert read.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(read.dataobj).T, LABELS)
    expected = (RAS @ grid.affine)[:, [2, 1, 0, 3]]
    np.testing.assert_allclose(read.affine, expected, atol=1e-5)
    np.testing.assert_allclose(read.header.get_zooms(), grid.spacing_mm[::-1], rtol=1e-6)
    qform, code = read.get_qform(coded=True)
    sheared = np.abs(expected[:3, :3].T @ expected[:3, :3]) > 1e-4
    if sheared.sum() > 3:
        assert code == 0
    else:
        assert code == 1
        np.testing.assert_allclose(qform, expected, atol=1e-4)


@grids
def test_simpleitk_reads_the_labels_in_their_place(tmp_path: Path, grid: Grid) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="needs SimpleITK, which no extra brings")
    path = write(tmp_path / "a.nii.gz", grid)
    if abs(grid.slice_gap_mm - grid.spacing_mm[0]) > 1e-3:
        with pytest.raises(RuntimeError, match="orthonormal"):  # it reads no shear, and says so
            sitk.ReadImage(str(path))
        return

    read = sitk.ReadImage(str(path))

    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), LABELS)
    for z, y, x in ((0, 0, 0), (9, 0, 0), (0, 11, 0), (0, 0, 10), (4, 5, 6)):
        theirs = read.TransformIndexToPhysicalPoint((x, y, z))
        np.testing.assert_allclose(theirs, (grid.affine @ [z, y, x, 1])[:3], atol=1e-3)


@grids
def test_labels_come_back(tmp_path: Path, grid: Grid) -> None:
    layout = find_layout(grid.affine)
    labels, affine = read_labels(write(tmp_path / "a.nii.gz", grid))
    canonical = layout.canonical_grid(SHAPE, grid.affine)
    np.testing.assert_array_equal(labels, layout.to_canonical(LABELS)[:: -1 if layout.flips[0] else 1])
    np.testing.assert_allclose(affine, canonical.affine, atol=1e-5)


def test_an_l_shaped_marker_lies_left_behind_and_above(tmp_path: Path) -> None:
    """Three arms from the centre: 1 to the patient's left, 2 to the back, 3 to the head."""
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[4, 4, 5:] = 1
    labels[4, 5:, 4] = 2
    labels[5:, 4, 4] = 3
    read = nib.load(write(tmp_path / "a.nii.gz", grid_of(shape=(9, 9, 9)), labels))

    data = np.asarray(read.dataobj)
    centre = read.affine @ [4, 4, 4, 1]
    arms = {label: np.argwhere(data == label).mean(axis=0) for label in (1, 2, 3)}
    steps = {label: (read.affine @ [*place, 1] - centre)[:3] for label, place in arms.items()}
    np.testing.assert_allclose(steps[1], [-2.5 * 0.8, 0, 0], atol=1e-4)  # RAS: left is -x
    np.testing.assert_allclose(steps[2], [0, -2.5 * 0.7, 0], atol=1e-4)  # back is -y
    np.testing.assert_allclose(steps[3], [0, 0, 2.5 * 2.5], atol=1e-4)  # head is +z


def test_the_header_says_what_it_is_and_nothing_of_a_patient(tmp_path: Path) -> None:
    header = nib.load(write(tmp_path / "a.nii.gz", grid_of())).header
    assert b"not for clinical use" in bytes(header["descrip"])
    assert header.get_xyzt_units()[0] == "mm"
    assert header.get_intent()[0] == "label"
    assert (header["sform_code"], header["qform_code"]) == (1, 1)
    assert not header.extensions
    data = (tmp_path / "a.nii.gz").read_bytes()
    assert data[3] == 0  # no name in gzip's header
    assert data[4:8] == bytes(4)  # nor a time


def test_it_is_one_gzip_member(tmp_path: Path) -> None:
    data = write(tmp_path / "a.nii.gz", grid_of()).read_bytes()
    engine = zlib.decompressobj(31)
    content = engine.decompress(data)
    assert engine.eof
    assert engine.unused_data == b""
    assert content[352:] == LABELS.tobytes()


def test_slices_that_were_not_read_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    with NiftiWriter(path, grid_of()) as writer:
        writer.write(7, LABELS[7])
        writer.write(2, LABELS[3])
        writer.write(2, LABELS[2])  # again
    data = np.asarray(nib.load(path).dataobj).T
    for index in range(len(LABELS)):
        expected = LABELS[index] if index in (2, 7) else np.full(SHAPE[1:], NOT_READ)
        np.testing.assert_array_equal(data[index], expected)


def test_probabilities_come_back_to_half_a_step(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(SHAPE, np.float32)
    values[0, 0, :5] = [0, 0.5, 1, -1e-6, 1 + 1e-6]
    path = tmp_path / "a.nii.gz"
    with NiftiWriter(path, grid_of(), kind="probability", name="opacity") as writer:
        for index in range(len(values) - 1):
            writer.write(index, values[index])
    read = nib.load(path)
    data = read.get_fdata().T
    assert np.abs(data[:-1] - values[:-1].clip(0, 1)).max() <= 0.5 / 254 + 1e-6
    assert data[0, 0, :5] == pytest.approx([0, 0.5, 1, 0, 1], abs=1e-7)
    assert (data[-1] > 1).all()
    assert read.header.get_intent()[::2] == ("estimate", "opacity")


@pytest.mark.parametrize("code", ["RAS", "LPS", "LAS", "PLI", "ARS", "SPL"])
def test_with_the_layout_of_its_source_a_map_matches_it_voxel_by_voxel(tmp_path: Path, code: str) -> None:
    hu = np.random.default_rng(0).permutation(np.arange(-900, 420)).reshape(SHAPE).astype(np.int16)
    made = nib.Nifti1Image(hu.T, (RAS @ grid_of().affine)[:, [2, 1, 0, 3]])
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(made.affine), nib.orientations.axcodes2ornt(code)
    )
    source = made.as_reoriented(turn)
    nib.save(source, tmp_path / "source.nii.gz")
    with read_nifti(tmp_path / "source.nii.gz") as scan:
        values = (scan.read(range(len(hu))) > 0).astype(np.uint8)
        write(tmp_path / "a.nii.gz", scan.grid, values, layout=scan.layout)
        assert scan.layout.by_slices == (code != "SPL")

    read = nib.load(tmp_path / "a.nii.gz")

    if code == "SPL":  # its slices are not in one piece: canonical then
        source = made
    np.testing.assert_allclose(read.affine, source.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(read.dataobj), np.asarray(source.dataobj) > 0)


def test_threads_may_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    with NiftiWriter(path, grid_of()) as writer, ThreadPoolExecutor(4) as pool:
        list(pool.map(writer.write, range(10), LABELS))
    np.testing.assert_array_equal(read_labels(path)[0], LABELS)


def test_what_does_not_fit_into_memory_waits_unseen_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")  # beside the output, nowhere else
    path = tmp_path / "a.nii.gz"
    with NiftiWriter(path, grid_of(), memory_bytes=100) as writer:
        for index, plane in enumerate(LABELS):
            writer.write(index, plane)
            assert list(tmp_path.iterdir()) == []
        assert writer._spool._rolled  # type: ignore[attr-defined]
    np.testing.assert_array_equal(read_labels(path)[0], LABELS)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_nothing_is_left_and_nothing_replaced_where_the_block_fails(
    tmp_path: Path, problem: type[BaseException]
) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"earlier")

    def fail() -> None:
        with NiftiWriter(path, grid_of()) as writer:
            writer.write(0, LABELS[0])
            raise problem

    with pytest.raises(problem):
        fail()
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file may grow over ``size`` bytes: what a full disk or a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("memory", [100, 1 << 24])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, memory: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (4, 64, 64)).astype(np.uint8)
    with pytest.raises(OutputError) as caught, small_disk(6000):
        write(tmp_path / "a.nii.gz", grid_of(shape=(4, 64, 64)), noise, memory_bytes=memory)
    assert caught.value.code == "disk-full"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        write(tmp_path / "none" / "a.nii.gz", grid_of())
    assert caught.value.code == "output-not-writable"


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda w: w.write(0, LABELS[0].astype(np.float32)), "integers"),
        (lambda w: w.write(0, np.full(SHAPE[1:], 255)), "0 to 254"),
        (lambda w: w.write(0, np.full(SHAPE[1:], -1)), "0 to 254"),
        (lambda w: w.write(0, LABELS[0][:-1]), "a slice is"),
        (lambda w: w.write(10, LABELS[0]), "slice 10 of 10"),
        (lambda w: w.write(-1, LABELS[0]), "slice -1 of 10"),
    ],
)
def test_improper_slices_are_refused(tmp_path: Path, act: Callable[[NiftiWriter], None], text: str) -> None:
    with (
        pytest.raises((ValueError, IndexError), match=text),
        NiftiWriter(tmp_path / "a.nii.gz", grid_of()) as w,
    ):
        act(w)


def test_a_probability_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    with (
        pytest.raises(ValueError, match="number"),
        NiftiWriter(path, grid_of(), kind="probability") as writer,
    ):
        writer.write(0, np.full(SHAPE[1:], np.nan))


@pytest.mark.parametrize(
    "options",
    [{"kind": "mask"}, {"name": "a" * 16}, {"name": "ä"}, {"path": "a.nii"}, {"shape": (1, 1, 40000)}],
)
def test_improper_arguments_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    grid = grid_of(shape=options.pop("shape", SHAPE))
    with pytest.raises(ValueError):
        NiftiWriter(tmp_path / options.pop("path", "a.nii.gz"), grid, **options)


@pytest.mark.parametrize(
    ("axes", "flips"), [((0, 1, 1), (False,) * 3), ((1, 2, 3), (False,) * 3), ((0, 1, 2), ())]
)
def test_improper_layouts_are_refused(axes: Any, flips: Any) -> None:
    with pytest.raises(ValueError, match="improper layout"):
        Layout(axes, flips)


@settings(max_examples=50)
@given(st.lists(st.binary(min_size=37, max_size=37), min_size=1, max_size=5), st.binary(max_size=50))
def test_checksums_of_parts_make_that_of_the_whole(parts: list[bytes], first: bytes) -> None:
    appender = Appender(37)
    whole = zlib.crc32(first)
    for part in parts:
        whole = appender.append(whole, zlib.crc32(part))
    assert whole == zlib.crc32(first + b"".join(parts))


def test_a_file_of_one_voxel_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", grid_of(shape=(1, 1, 1)), np.full((1, 1, 1), 3, np.uint8))
    assert gzip.decompress(path.read_bytes())[352:] == b"\x03"
    assert read_labels(path)[0].tolist() == [[[3]]]
