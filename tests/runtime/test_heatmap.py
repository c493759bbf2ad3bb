from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bedside import BundleError, RefusedError, heatmap
from bedside.cxr import Frame, frame_of
from bedside.heatmap import overlay, render
from made_results import scored, unscored

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def grey_of(pixels: Floats) -> Bytes:
    return np.repeat(np.rint(pixels * 255).astype(np.uint8)[..., None], 3, axis=2)


def colour_strength(picture: Bytes) -> npt.NDArray[np.float64]:
    """Distance from grey: 0 where all three channels are the same."""
    return np.asarray(np.ptp(picture.astype(float), axis=2))


def noise(shape: tuple[int, int]) -> Floats:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize(
    ("shape", "aspect", "crop"),
    [
        ((300, 300), 1.0, "centre-square"),
        ((400, 300), 1.0, "centre-square"),
        ((300, 400), 1.0, "centre-square"),
        ((401, 300), 1.0, "pad-square"),
        ((300, 401), 1.0, "pad-square"),
        ((300, 300), 1.5, "centre-square"),
        ((300, 300), 1.5, "pad-square"),
        ((700, 400), 0.5, "pad-square"),
    ],
)
@pytest.mark.parametrize("cell", [(2, 4), (4, 3), (3, 2)])
def test_hot_cell_lands_on_its_pixels(
    shape: tuple[int, int], aspect: float, crop: str, cell: tuple[int, int]
) -> None:
    frame = frame_of(shape, aspect, crop)
    activation = np.zeros((7, 7), np.float32)
    activation[cell] = 8
    strength = colour_strength(overlay(np.full(shape, 0.5, np.float32), frame, activation, top=8))

    rows, columns = np.indices(shape)
    row = np.average(rows, weights=strength) + 0.5  # the picture's pixel 0 reaches from 0 to 1
    column = np.average(columns, weights=strength) + 0.5
    assert row == pytest.approx(frame.top + (cell[0] + 0.5) / 7 * frame.height, abs=0.5)
    assert column == pytest.approx(frame.left + (cell[1] + 0.5) / 7 * frame.width, abs=0.5)


def test_shape_is_neither_mirrored_nor_turned() -> None:
    letter = np.array(
        [[0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]], np.float32
    )
    picture = overlay(np.full((105, 155), 0.5, np.float32), Frame(0, 0, 105, 155), letter * 8, top=8)
    strength = colour_strength(picture)[10::21, 15::31]  # at the centres of the cells
    np.testing.assert_array_equal(strength > 0, letter > 0)


def test_picture_without_activation_stays_exactly_grey() -> None:
    pixels = noise((90, 70))
    for value in (0.0, -5.0):
        activation = np.full((7, 7), value, np.float32)
        np.testing.assert_array_equal(
            overlay(pixels, Frame(-10, 0, 110, 70), activation, top=8), grey_of(pixels)
        )


def test_pixels_out_of_a_cells_reach_stay_exactly_grey() -> None:
    pixels = noise((140, 140))
    activation = np.full((7, 7), -1, np.float32)
    activation[3, 3] = 8
    picture = overlay(pixels, Frame(0, 0, 140, 140), activation, top=8)
    coloured = np.zeros((140, 140), bool)
    coloured[50:90, 50:90] = True  # a cell is 20 pixels wide, and reaches to its neighbours' centres
    np.testing.assert_array_equal(picture[~coloured], grey_of(pixels)[~coloured])
    assert (colour_strength(picture)[60:80, 60:80] > 0).all()


def test_pixels_outside_the_frame_stay_exactly_grey() -> None:
    pixels = noise((120, 80))
    picture = overlay(pixels, Frame(20, 0, 80, 80), np.full((7, 7), 8, np.float32), top=8)
    grey = grey_of(pixels)
    np.testing.assert_array_equal(picture[:20], grey[:20])
    np.testing.assert_array_equal(picture[100:], grey[100:])
    assert (colour_strength(picture[20:100]) > 0).all()


def test_interpolation_is_pillows_bilinear() -> None:
    activation = np.random.default_rng(1).normal(0, 4, (7, 5)).astype(np.float32)
    along = heatmap.interpolation(93, 0, 93, 7)
    across = heatmap.interpolation(71, 0, 71, 5)
    expected = np.asarray(Image.fromarray(activation).resize((71, 93), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(along @ activation @ across.T, expected, atol=1e-4)


def test_frame_beyond_the_picture_shows_its_middle() -> None:
    activation = np.random.default_rng(2).uniform(0, 8, (7, 7)).astype(np.float32)
    pixels = np.full((60, 100), 0.5, np.float32)
    whole = np.full((100, 100), 0.5, np.float32)
    np.testing.assert_array_equal(
        overlay(pixels, Frame(-20, 0, 100, 100), activation, top=8),
        overlay(whole, Frame(0, 0, 100, 100), activation, top=8)[20:80],
    )


def test_colour_means_the_same_points_in_every_picture() -> None:
    pixels = np.full((50, 50), 0.5, np.float32)
    quiet = np.full((5, 5), 2, np.float32)
    busy = quiet.copy()
    busy[4, 4] = 40
    frame = Frame(0, 0, 50, 50)
    np.testing.assert_array_equal(
        overlay(pixels, frame, quiet, top=8)[:30, :30], overlay(pixels, frame, busy, top=8)[:30, :30]
    )


def test_value_beyond_the_scale_has_its_last_colour() -> None:
    pixels = np.zeros((10, 10), np.float32)
    pictures = [
        overlay(pixels, Frame(0, 0, 10, 10), np.full((2, 2), value, np.float32), top=8) for value in (8, 80)
    ]
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_anatomy_shows_through_the_strongest_colour() -> None:
    pixels = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (10, 1))
    picture = overlay(pixels, Frame(0, 0, 10, 256), np.full((2, 2), 8, np.float32), top=8).astype(int)
    assert (np.diff(picture, axis=1) >= 0).all()
    assert (picture[:, -1] - picture[:, 0] >= 120).all()


def lightness(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """L* of CIELAB (CIE 15) of sRGB from 0 to 255 (IEC 61966-2-1)."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    scaled = np.where(luminance > (6 / 29) ** 3, 116 * np.cbrt(luminance) - 16, luminance * (29 / 3) ** 3)
    return np.asarray(scaled)


def test_colours_grow_lighter_in_even_steps() -> None:
    # in a rainbow, by contrast, lightness goes up and down
    steps = np.diff(lightness(heatmap._colours(np.linspace(0, 1, 33))))
    assert (steps > 0).all()
    assert steps.sum() > 75
    assert steps.max() / steps.min() < 2


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    frame=st.builds(
        Frame, st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 90), st.integers(1, 90)
    ),
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**16),
)
def test_any_frame_and_map_can_be_drawn(
    height: int, width: int, frame: Frame, cells: tuple[int, int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    pixels = random.random((height, width), np.float32)
    activation = random.normal(0, 5, cells).astype(np.float32)
    picture = overlay(pixels, frame, activation, top=8)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    rows, columns = np.indices((height, width))
    outside = (rows < frame.top) | (rows >= frame.top + frame.height)
    outside |= (columns < frame.left) | (columns >= frame.left + frame.width)
    np.testing.assert_array_equal(picture[outside], grey_of(pixels)[outside])


def find(picture: Bytes, canvas: Bytes) -> tuple[int, int]:
    """Row and column of ``picture`` in ``canvas``, which has it in the middle of its width."""
    left = (canvas.shape[1] - picture.shape[1]) // 2
    inner = canvas[:, left : left + picture.shape[1]]
    for top in range(canvas.shape[0] - picture.shape[0] + 1):
        if np.array_equal(inner[top : top + picture.shape[0]], picture):
            return top, left
    raise AssertionError("the canvas does not hold the picture")


@pytest.mark.parametrize("shape", [(60, 80), (300, 300), (500, 1200)])
def test_canvas_holds_the_xray_one_to_one_between_text(shape: tuple[int, int]) -> None:
    result = scored(pixels=noise(shape))
    canvas = render(result)
    assert canvas.dtype == np.uint8
    assert canvas.shape[1] == max(shape[1], heatmap.MIN_WIDTH)
    assert result.frame is not None
    assert result.severity is not None
    picture = overlay(noise(shape), result.frame, result.severity.activation["extent"], top=8)
    top, _ = find(picture, canvas)
    assert canvas[:top].max() > 200
    assert canvas[top + shape[0] :].max() > 200


def rows_that_differ(one: Bytes, other: Bytes) -> tuple[int, int]:
    rows = np.flatnonzero((one != other).any(axis=(1, 2)))
    return int(rows[0]), int(rows[-1])


def test_score_is_written_above_the_picture() -> None:
    height = 400
    one, other = (render(scored(extent=value, pixels=noise((height, 400)))) for value in (5.2, 5.3))
    first, last = rows_that_differ(one, other)
    line = heatmap._text_size(400) * 3 // 2
    assert last - first < line
    assert last < line * 2


def test_bundle_is_written_below_the_picture() -> None:
    result = scored(pixels=noise((400, 400)))
    one = render(result)
    other = render(replace(result, bundle=replace(result.bundle, version="2.0.0")))
    first, _ = rows_that_differ(one, other)
    assert first > one.shape[0] - heatmap._text_size(400) * 3


def test_forced_score_and_cut_picture_have_a_line_more() -> None:
    line = heatmap._text_size(heatmap.MIN_WIDTH) * 3 // 2
    plain = render(scored()).shape[0]
    assert render(scored(forced=True)).shape[0] == plain + line
    assert render(scored(crop="centre-square")).shape[0] == plain + line


def test_warning_has_its_own_colour() -> None:
    for width in (64, 1000):
        canvas = render(scored(pixels=noise((64, width))))
        heading = canvas[: heatmap._text_size(canvas.shape[1]) * 5].astype(int)
        assert (heading[..., 0] - heading[..., 2] > 100).sum() > 100
        assert (heading[..., 2] - heading[..., 0] > 20).sum() == 0


def test_text_that_is_too_long_is_cut_before_the_edge() -> None:
    result = scored(pixels=np.zeros((64, 64), np.float32))
    long = replace(result, bundle=replace(result.bundle, name="a-very-long-name" * 4, version="1.0.0" * 6))
    canvas = render(long)
    margin = heatmap._text_size(canvas.shape[1]) - 2  # a glyph may reach a pixel past its advance
    assert canvas[:, -margin:].max() == 0
    assert canvas[:, :margin].max() == 0


def test_text_grows_with_the_picture() -> None:
    assert heatmap._text_size(3000) == pytest.approx(10 * heatmap._text_size(300), rel=0.45)
    assert heatmap._text_size(100) == heatmap.MIN_TEXT


def test_opacity_has_its_own_map_and_scale() -> None:
    extent, opacity = np.zeros((7, 7), np.float32), np.zeros((7, 7), np.float32)
    extent[2, 2] = opacity[4, 4] = 6
    result = scored(pixels=noise((140, 140)), activation={"extent": extent, "opacity": opacity})
    assert result.frame is not None
    find(overlay(noise((140, 140)), result.frame, extent, top=8), render(result))
    find(overlay(noise((140, 140)), result.frame, opacity, top=6), render(result, score="opacity"))


def test_bundle_without_a_map_is_told() -> None:
    with pytest.raises(BundleError) as told:
        render(scored(activation={}))
    assert told.value.code == "bundle-task"


def test_result_without_a_score_has_no_heatmap() -> None:
    with pytest.raises(ValueError, match="a scored result"):
        render(unscored("ct.dcm", RefusedError("wrong-modality", "the modality is CT")))
    with pytest.raises(ValueError, match="a scored result"):
        render(replace(scored(), radiograph=None))


def test_unknown_score_is_refused() -> None:
    with pytest.raises(ValueError, match="extent, opacity"):
        render(scored(), score="volume")
