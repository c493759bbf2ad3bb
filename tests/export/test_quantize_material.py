from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bedside import sample_ct
from bedside.bundle import Bundle
from bedside.cxr import preprocess
from bedside.reading import read_radiograph
from bedside.sample import write_sample
from bedside.scan import Grid
from bedside_export.errors import ExportError
from bedside_export.precision.material import (
    FEWEST,
    Material,
    hash_image,
    make_material,
    read_material,
    split,
)
from bedside_export.precision.process import choose_material
from dicom_series import make_series, write_series
from tiny_bundle import make_bundle
from tiny_ct_bundle import make_ct_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(make_bundle(tmp_path / "bundle"))


def write_picture(path: Path, seed: int) -> Path:
    """A smooth grey picture of 96 x 80 pixels."""
    random = np.random.Generator(np.random.PCG64(seed))
    coarse = Image.fromarray(random.integers(0, 256, (6, 5)).astype(np.uint8))
    coarse.resize((80, 96), Image.Resampling.BICUBIC).save(path)
    return path


def numbers(count: int, groups: int | None = None) -> Material:
    """Inputs that are one number each."""
    return make_material((np.full((1, 1, 1, 1), i, np.float32), i % (groups or count)) for i in range(count))


def test_pictures_are_what_the_runtime_shows_the_network(tmp_path: Path, bundle: Bundle) -> None:
    folder = tmp_path / "pictures" / "inner"
    folder.mkdir(parents=True)
    paths = [write_picture(folder / f"{seed}.png", seed) for seed in range(3)]
    paths.append(write_sample(folder.parent / "sample.dcm"))
    material = read_material(folder.parent, bundle.manifest)
    wanted = [preprocess(read_radiograph(path), bundle.manifest.input) for path in paths]
    assert {hash_image(image) for image in material.images} == {hash_image(image) for image in wanted}
    assert [hash_image(image) for image in material.images] == sorted(hash_image(image) for image in wanted)


def test_material_is_named_by_what_it_shows_and_not_by_files(tmp_path: Path, bundle: Bundle) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, names in ((first, "pqr"), (second, "zyx")):
        folder.mkdir()
        for seed, name in enumerate(names):
            write_picture(folder / f"{name}.png", seed)
    write_picture(second / "again.png", 2)  # the same picture twice counts once
    one, two = (read_material(folder, bundle.manifest) for folder in (first, second))
    assert (len(one), one.sha256) == (len(two), two.sha256)
    assert len(one.sha256) == 64


def test_what_can_not_be_used_is_counted_and_told_by_number(tmp_path: Path, bundle: Bundle) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    write_picture(folder / "b-good.png", 1)
    (folder / "a-secret-name.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (folder / "c-notes.txt").write_text("not a picture", encoding="utf-8")
    (folder / ".hidden").write_text("left alone", encoding="utf-8")
    Image.new("L", (96, 96), 7).save(folder / "d-constant.png")
    said: list[str] = []
    material = read_material(folder, bundle.manifest, say=said.append)
    assert len(material) == 1
    assert material.skipped == {"broken-image": 1, "not-an-image": 1, "constant-image": 1}
    assert [line.partition(":")[0] for line in said] == [f"skipped file {n}" for n in (1, 3, 4)]
    assert not any("secret" in line for line in said)


def test_pictures_of_another_kind_are_refused_with_their_reason(tmp_path: Path, bundle: Bundle) -> None:
    write_series(tmp_path / "ct", make_series())
    with pytest.raises(ExportError, match=r"nothing in the folder .* wrong-modality.* frontal chest X-rays"):
        read_material(tmp_path / "ct", bundle.manifest)


@pytest.mark.parametrize(("make", "complaint"), [(False, "no such folder"), (True, "is empty")])
def test_a_folder_without_anything_is_refused(
    tmp_path: Path, bundle: Bundle, *, make: bool, complaint: str
) -> None:
    if make:
        (tmp_path / "pictures").mkdir()
    with pytest.raises(ExportError, match=complaint):
        read_material(tmp_path / "pictures", bundle.manifest)


def test_halves_share_no_picture_and_no_scan() -> None:
    for material in (numbers(20), numbers(20, groups=4), numbers(9, groups=1)):
        one, two = split(material)
        assert len(one) + len(two) == len(material)
        assert abs(len(one) - len(two)) <= 1
        assert not {hash_image(image) for image in one.images} & {hash_image(image) for image in two.images}
    one, two = split(numbers(20, groups=4))
    assert not set(one.groups) & set(two.groups)


@pytest.mark.parametrize("count", [1, FEWEST, 2 * FEWEST - 1])
def test_too_few_pictures_are_refused_with_how_many_are_needed(count: int) -> None:
    with pytest.raises(
        ExportError, match=rf"there are {count} different inputs, and at least {2 * FEWEST} are"
    ):
        choose_material(numbers(count), None)
    with pytest.raises(ExportError, match=f"at least {FEWEST} are needed to calibrate on"):
        choose_material(numbers(FEWEST - 1), numbers(FEWEST))


def test_what_is_calibrated_on_is_not_compared_on() -> None:
    with pytest.raises(ExportError, match=r"there are 0 different inputs.* that are not calibrated on"):
        choose_material(numbers(FEWEST), numbers(FEWEST))
    calibration, validation = choose_material(numbers(FEWEST), numbers(2 * FEWEST))
    assert (len(calibration), len(validation)) == (FEWEST, FEWEST)
    assert not {hash_image(i) for i in calibration.images} & {hash_image(i) for i in validation.images}


def test_scans_are_cut_as_the_runtime_cuts_them(tmp_path: Path) -> None:
    bundle = Bundle.open(make_ct_bundle(tmp_path / "bundle"))
    folder = tmp_path / "scans"
    mm = 390 / 48
    affine = np.diag([20.0, mm, mm, 1.0])[[2, 1, 0, 3]]
    affine[:3, 3] = -195.0, -190.0, -120.0
    folder.mkdir()
    for seed in (1, 2):
        sample_ct.write_series(folder / str(seed), grid=Grid((12, 48, 48), affine), seed=seed)
    material = read_material(folder, bundle.manifest)
    assert set(material.groups) == {1, 2}
    assert {image.shape[:2] for image in material.images} == {(1, 1)}
    low, high = bundle.manifest.input.low, bundle.manifest.input.high
    assert all(low <= image.min() < image.max() <= high for image in material.images)


def test_a_mask_and_an_x_ray_are_no_scans(tmp_path: Path) -> None:
    bundle = Bundle.open(make_ct_bundle(tmp_path / "bundle"))
    folder = tmp_path / "scans"
    folder.mkdir()
    write_sample(folder / "sample.dcm")
    with pytest.raises(ExportError, match=r"\(1 wrong-modality\); give CT scans"):
        read_material(folder, bundle.manifest)


def test_a_network_that_takes_neighbours_gets_them(tmp_path: Path) -> None:
    from tiny_ct_bundle import ThresholdNetwork

    bundle = Bundle.open(make_ct_bundle(tmp_path / "bundle", network=ThresholdNetwork(context=1)))
    write_series(tmp_path / "series", make_series())
    material = read_material(tmp_path / "series", bundle.manifest)
    assert {image.shape[1] for image in material.images} == {3}


def test_inputs_are_spread_over_all_that_there_are() -> None:
    material = numbers(100)
    assert len(material.spread(7)) == 7
    assert material.spread(200).sha256 == material.sha256
