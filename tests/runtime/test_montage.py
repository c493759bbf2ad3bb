from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from bedside.opacification import Picture, TissueVolume
from bedside.report.montage import FILLING, GAP, WINDOW, draw_slice, render
from bedside.report.palette import COLOURS, LUNG, Ink
from made_scans import measured, phantom_scan, segmented

Bytes = npt.NDArray[np.uint8]

RED = Ink(COLOURS[0], 0, filled=True)


def tissues() -> tuple[TissueVolume, ...]:
    found = segmented().opacification
    assert found is not None
    return found.tissues


def chest(pictures: int = 12, *, case: str = "severe", squeeze: float = 1.0) -> tuple[Picture, ...]:
    hu, labels, grid = phantom_scan(case, squeeze=squeeze)
    return measured(hu, labels, grid, pictures=pictures).pictures


def coloured(picture: Bytes) -> npt.NDArray[np.bool_]:
    return np.asarray(np.ptp(picture.astype(int), axis=2) > 0)


def blank(rows: int = 60, columns: int = 80, hu: float = -600) -> npt.NDArray[np.float32]:
    return np.full((rows, columns), hu, np.float32)


def test_window_is_the_usual_one_for_lungs() -> None:
    shown = WINDOW.apply(np.array([-2000.0, -1350.0, -600.0, 150.0, 1000.0]))
    np.testing.assert_allclose(shown, [0, 0, 0.5, 1, 1])


def test_slice_without_labels_stays_exactly_grey() -> None:
    hu = np.random.default_rng(0).normal(-600, 400, (60, 80)).astype(np.float32)
    picture = draw_slice(hu, np.zeros((60, 80), np.uint8), (60, 80), inks={1: RED}, lungs=[1])
    expected = np.rint(np.clip((hu.astype(float) + 1350) / 1500, 0, 1) * 255)
    np.testing.assert_array_equal(picture, np.repeat(expected[..., None], 3, axis=2))


def test_opacity_is_half_transparent_within_its_line_and_nothing_else_is_touched() -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[20:40, 30:60] = 3
    picture = draw_slice(blank(), labels, (60, 80), inks={3: RED}, lungs=[])
    inner, outer = picture[25, 45], picture[10, 10]
    np.testing.assert_array_equal(outer, [128, 128, 128])
    np.testing.assert_allclose(inner, 128 * (1 - FILLING) + np.array(RED.colour) * FILLING, atol=1)
    np.testing.assert_array_equal(picture[20, 30], RED.colour)
    np.testing.assert_array_equal(coloured(picture), labels == 3)


@pytest.mark.parametrize("size", [(60, 80), (120, 160), (30, 40), (173, 231)])
def test_label_lands_on_its_pixels_at_any_size(size: tuple[int, int]) -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[12:24, 48:68] = 3
    picture = draw_slice(blank(), labels, size, inks={3: RED}, lungs=[])
    rows, columns = np.nonzero(coloured(picture))
    scale = size[0] / 60
    assert (rows.mean() + 0.5) / scale == pytest.approx(18, abs=0.2)
    assert (columns.mean() + 0.5) / scale == pytest.approx(58, abs=0.2)


def test_lungs_are_outlined_with_their_opacities_and_not_filled() -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[10:50, 10:40] = 1
    labels[10:50, 40:70] = 3
    picture = draw_slice(blank(), labels, (60, 80), inks={3: RED}, lungs=[1, 3])
    outline = (picture == np.array(LUNG)).all(axis=2)
    assert outline[10, 10:70].all()
    assert outline[10:50, 10].all()
    assert outline[10:50, 69].all()
    assert not outline[:, 35:45][15:45].any()
    np.testing.assert_array_equal(picture[30, 20], [128, 128, 128])


def test_tissue_that_does_not_count_has_a_dashed_line_seen_on_black_and_white() -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[10:50, 10:70] = 2
    for hu in (-1350.0, 150.0):
        picture = draw_slice(
            blank(hu=hu), labels, (60, 80), inks={2: Ink(COLOURS[1], 0, filled=False)}, lungs=[]
        )
        top = picture[10, 10:70]
        assert 0.3 < (top == np.array(COLOURS[1])).all(axis=1).mean() < 0.9
        assert (top == 0).all(axis=1).mean() > 0.1
        np.testing.assert_array_equal(picture[30, 40], picture[5, 5])


def test_opacity_smaller_than_a_pixel_of_the_picture_still_shows() -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[30, 40] = 3
    assert coloured(draw_slice(blank(), labels, (20, 27), inks={3: RED}, lungs=[])).any()


def test_patients_left_is_on_the_right_and_the_front_is_up() -> None:
    base = chest(1)[0]
    labels = np.zeros_like(base.labels)
    rows, columns = labels.shape
    labels[rows // 2 : rows // 2 + 8, columns * 3 // 4 : columns * 3 // 4 + 8] = 3  # back, patient's left
    strength = coloured(render([replace(base, labels=labels)], tissues(), width=800))
    places = np.argwhere(strength)
    assert places[:, 1].mean() > 0.6 * 800
    assert places[:, 0].mean() > 0.5 * strength.shape[0]


def test_slices_run_from_the_head_to_the_feet() -> None:
    first, last = chest(2)
    empty, full = np.zeros_like(first.labels), np.full_like(first.labels, 3)
    picture = render([replace(first, labels=empty), replace(last, labels=full)], tissues(), width=800)
    strength = coloured(picture)
    assert strength[:, :396].any()
    assert not strength[:, 404:].any()


@pytest.mark.parametrize("squeeze", [0.5, 1.0, 2.0])
def test_millimetres_are_alike_along_both_axes(squeeze: float) -> None:
    pictures = chest(1, squeeze=squeeze)
    row_mm, column_mm = pictures[0].spacing_mm
    rows, columns = pictures[0].hu.shape
    y, x = np.indices((rows, columns))
    disc = ((y - rows / 2) * row_mm) ** 2 + ((x - columns / 2) * column_mm) ** 2 < 60**2
    labels = np.where(disc, 3, 0).astype(np.uint8)
    drawn = np.ptp(render([replace(pictures[0], labels=labels)], tissues(), width=800).astype(int), axis=2)
    height, width = np.argwhere(drawn > drawn.max() / 4).std(axis=0)  # what is at least half covered
    assert height == pytest.approx(width, rel=0.04)


def test_crop_does_not_depend_on_the_labels_and_keeps_the_body() -> None:
    pictures = chest(4)
    without = [replace(each, labels=np.zeros_like(each.labels)) for each in pictures]
    with_labels, bare = (render(each, tissues(), width=1000) for each in (pictures, without))
    assert with_labels.shape == bare.shape
    outside = ~coloured(with_labels)
    np.testing.assert_array_equal(with_labels[outside], bare[outside])


def test_scan_of_air_is_drawn_whole() -> None:
    picture = Picture(0, 0.0, blank(hu=-1000), np.zeros((60, 80), np.uint8), (1.0, 1.0))
    height, width = 60, 80
    assert render([picture], tissues(), width=800).shape == (round(768 * height / width), 800, 3)


@pytest.mark.parametrize("count", range(1, 21))
def test_any_number_of_slices_fits(count: int) -> None:
    picture = Picture(0, 0.0, blank(), np.zeros((60, 80), np.uint8), (1.0, 1.0))
    drawn = render([replace(picture, index=n, z_mm=10.0 * n) for n in range(count)], tissues(), width=1000)
    assert drawn.shape[1] == 1000
    assert (drawn == 128).all(axis=2).mean() > 0.45
    for edge in (drawn[:, :1], drawn[:, -1:]):
        assert not ((edge != 0) & (edge != 128)).any()


def test_nothing_is_drawn_between_the_slices() -> None:
    picture = Picture(0, 0.0, blank(), np.zeros((60, 80), np.uint8), (1.0, 1.0))
    drawn = render([picture, picture], tissues(), width=800)
    middle = drawn[:, 400 - GAP // 2 : 400 + GAP // 2]
    assert (middle == 0).all()


def test_pictures_of_different_grids_are_refused() -> None:
    one = Picture(0, 0.0, blank(), np.zeros((60, 80), np.uint8), (1.0, 1.0))
    for other in (replace(one, spacing_mm=(2.0, 1.0)), replace(one, hu=blank(50))):
        with pytest.raises(ValueError, match="one grid"):
            render([one, other], tissues(), width=800)
    with pytest.raises(ValueError, match="one grid"):
        render([], tissues(), width=800)
