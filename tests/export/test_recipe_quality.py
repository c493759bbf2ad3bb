"""The quality network's recipe: how pictures are spoilt, who is held out, what is refused, what goes into a bundle."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bedside.contract import APPEARANCES
from bedside_export.recipes.cxr.data import Collection, DataError, Picture
from bedside_export.recipes.cxr.network import INPUT_SIZE, SeverityNetwork
from bedside_export.recipes.cxr.quality.appearance import answer_fold
from bedside_export.recipes.cxr.quality.data import FOLDS, HELD_OUT, Chests, Others, assign_folds
from bedside_export.recipes.cxr.quality.drawn import DRAWN, DRAWN_SIDE, draw
from bedside_export.recipes.cxr.quality.network import POOL, SIDE, CheckedNetwork, QualityNetwork
from bedside_export.recipes.cxr.quality.packages import PACKAGES, Package, read_members, read_pictures
from bedside_export.recipes.cxr.quality.report import (
    FRONTAL,
    HANDLED,
    PHANTOM,
    Answers,
    choose_thresholds,
    describe,
    summarise,
)
from bedside_export.recipes.cxr.quality.training import Recipe, shrink, train_network
from bedside_export.recipes.cxr.quality.volumes import Body, cut_planes, cut_slices, project_sides
from bedside_export.recipes.cxr.quality.warp import PLAIN, SPOILS, show


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def portrait() -> tuple[torch.Tensor, torch.Tensor]:
    """A portrait picture, brighter to the right and below, in its square; and its extent."""
    square = torch.zeros(1, 1, 160, 160)
    y, x = torch.meshgrid(torch.linspace(0.2, 0.9, 160), torch.linspace(0, 0.1, 120), indexing="ij")
    square[0, 0, :, 20:140] = y + x
    return square, torch.tensor([[0.75, 1.0]])


def shown(spoil: str, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    square, extent = portrait()
    picture: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = show(
        square, extent, spoil, PLAIN, torch.Generator().manual_seed(seed)
    )[0, 0].numpy()
    assert picture.shape == (SIDE, SIDE)
    return picture


# How pictures are spoilt


def test_plain_picture_is_the_averaged_square() -> None:
    square, _ = portrait()
    expected = torch.nn.functional.avg_pool2d(square, 2)[0, 0].numpy()
    assert np.abs(shown("frontal") - expected)[2:-2, 13:-13].max() < 0.01  # softness changes its edges


@pytest.mark.parametrize(("spoil", "quarters"), [("turned left", 1), ("upside down", 2), ("turned right", 3)])
def test_turns_are_numpys(spoil: str, quarters: int) -> None:
    expected = np.rot90(shown("frontal"), quarters)
    assert np.abs(shown(spoil) - expected)[13:-13, 13:-13].max() < 0.02


def test_inverted_picture_stays_black_outside() -> None:
    plain, inverted = shown("frontal"), shown("inverted")
    assert np.abs(plain + inverted - 1)[2:-2, 13:-13].max() < 0.02
    assert not inverted[:, :9].any()


@pytest.mark.parametrize("seed", range(4))
def test_one_lung_is_less_than_half_as_wide(seed: int) -> None:
    columns = (shown("one lung", seed) > 0).any(0).sum()
    assert 0.3 * 60 < columns < 0.5 * 60


@pytest.mark.parametrize("seed", range(4))
def test_nothing_left_has_one_grey_value_nearly_everywhere(seed: int) -> None:
    inside = shown("nothing left", seed)[:, 12:-12]
    assert max((inside < 0.05).mean(), (inside > 0.95).mean()) > 0.8


def test_jigsaw_keeps_what_was_there() -> None:
    assert shown("jigsaw").mean() == pytest.approx(shown("frontal").mean(), rel=0.2)
    assert np.abs(shown("jigsaw") - shown("frontal")).mean() > 0.05


def test_every_spoil_is_an_appearance_and_every_appearance_is_learnt() -> None:
    assert set(SPOILS.values()) == set(APPEARANCES)
    assert next(iter(SPOILS.items())) == ("frontal", "frontal")


# What is drawn, cut and read


@pytest.mark.parametrize("kind", DRAWN)
def test_drawing_is_a_picture_and_the_same_for_one_seed(kind: str) -> None:
    first, again = (draw(kind, np.random.default_rng(3)) for _ in range(2))
    assert first.shape == (DRAWN_SIDE, DRAWN_SIDE)
    assert first.dtype == np.float32
    assert 0 <= first.min() <= first.max() <= 1
    np.testing.assert_array_equal(first, again)


def test_planes_have_the_head_above_and_no_projection_is_frontal() -> None:
    hu = np.full((60, 50, 50), -1000, np.float32)
    hu[5:55, 10:40, 8:42] = 40
    hu[48:52, 12:38, 12:38] = 1000  # near the head
    body = Body("test", hu, hu[::20])
    for plane in cut_planes(body):
        assert plane[:20].mean() > plane[-20:].mean()
    assert len(list(cut_slices(body))) == 2 * len(body.slices)
    assert all(picture.ndim == 2 and picture.max() <= 1 for picture in project_sides(body))


def _png(grey: int, alpha: int = 255) -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA", (60, 40), (grey, grey, grey, alpha)).save(stream, "PNG")
    return stream.getvalue()


def _tar(files: dict[str, bytes], mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _deb(data: bytes) -> bytes:
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data}
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        parts.append(head + content + b"\n" * (len(content) % 2))
    return b"".join(parts)


@pytest.mark.parametrize("suffix", [".whl", ".tgz", ".deb"])
def test_packages_of_every_kind_are_read_in_order(suffix: str, tmp_path: Path) -> None:
    files = {"a/two.png": _png(200), "a/one.png": _png(100), "a/readme.txt": b"no picture"}
    path = tmp_path / f"pictures-1{suffix}"
    if suffix == ".whl":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        path.write_bytes(_tar(files, "w:gz") if suffix == ".tgz" else _deb(lzma.compress(_tar(files, "w"))))
    assert [name for name, _ in read_members(path, r"\.png$")] == ["a/one.png", "a/two.png"]
    package = Package("pictures-*", "photographs", r"\.png$", "none", views=2)
    pictures = list(read_pictures(tmp_path, package))
    assert [round(float(picture.mean()) * 255) for picture in pictures] == [100, 100, 200, 200]


def test_package_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="how to get it"):
        list(read_pictures(tmp_path, PACKAGES[0]))


# Who is held out


def _collection(pictures: list[tuple[str, str | None]]) -> Collection:
    return Collection(Path("none"), tuple(Picture(name, patient, "PA") for name, patient in pictures))


def test_patients_and_copies_stay_in_one_fold() -> None:
    pictures: list[tuple[str, str | None]] = [(f"p{i}", str(i // 2)) for i in range(40)]
    pictures.append(("copy", None))
    collection = _collection(pictures)
    chance = np.random.default_rng(0).normal(size=(41, 1024)).astype(np.float32)
    chance[40] = chance[7]
    thumbnails = {name: row / np.linalg.norm(row) for (name, _), row in zip(pictures, chance, strict=True)}
    folds = assign_folds(collection, thumbnails)
    assert folds[0::2][:20] == folds[1::2][:20]
    assert folds[40] == folds[7]
    assert set(folds) == set(range(FOLDS))


def test_held_out_kinds_are_each_in_one_fold() -> None:
    kinds = [kind for fold in HELD_OUT for kind in fold]
    assert len(set(kinds)) == len(kinds)
    assert set(DRAWN) | {package.kind for package in PACKAGES} <= set(kinds)


def test_fold_trains_on_no_kind_that_it_is_measured_on() -> None:
    kinds = ("axial CT", "photographs", "limbs", "photographs")
    others = Others(torch.zeros(4, 1, 4, 4, dtype=torch.uint8), kinds, ("test",) * 4)
    assert others.training(4).tolist() == [0, 2]
    assert others.unseen(4).tolist() == [1, 3]
    assert others.training(-1).tolist() == [0, 1, 2, 3]


# The network


def test_both_networks_in_one_graph_answer_as_each_alone() -> None:
    torch.manual_seed(0)
    severity, quality = SeverityNetwork().eval(), QualityNetwork().eval()
    image = torch.rand(2, 1, INPUT_SIZE, INPUT_SIZE)
    with torch.no_grad():
        *ours, appearance = CheckedNetwork(severity, quality).eval()(image)
        for mine, theirs in zip(ours, severity(image), strict=True):
            assert torch.equal(mine, theirs)
        assert torch.equal(appearance, quality(image))
    assert appearance.shape == (2, len(APPEARANCES))
    assert torch.allclose(appearance.sum(1), torch.ones(2))


def test_network_is_small() -> None:
    assert 4 * sum(weights.numel() for weights in QualityNetwork().parameters()) < 250_000


def test_blank_picture_has_a_finite_answer() -> None:
    network = QualityNetwork().eval()
    with torch.no_grad():
        assert network(torch.full((1, 1, INPUT_SIZE, INPUT_SIZE), 0.5)).isfinite().all()


def _material() -> tuple[Chests, Others]:
    """Bright discs on a dark ground, above the middle, for chests; noise for others."""
    chance = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:320j, -1:1:320j]
    disc = np.where((x**2 + (y + 0.4) ** 2) < 0.2, 220, 60)
    chests = np.clip(disc + chance.normal(0, 8, (20, 1, 320, 320)), 0, 255).astype(np.uint8)
    noise = chance.integers(0, 256, (20, 1, 320, 320)).astype(np.uint8)
    return (
        Chests(torch.from_numpy(chests), torch.ones(20, 2), torch.arange(20) % FOLDS, torch.arange(20) >= 15),
        Others(torch.from_numpy(noise), ("white noise", "stripes") * 10, ("test",) * 20),
    )


def test_training_tells_chests_from_others_and_repeats_itself() -> None:
    chests, others = _material()
    recipe = Recipe(epochs=3, spoiled=2, batch=8)
    network, again = (train_network(chests, others, recipe, fold=0) for _ in range(2))
    for first, second in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)
    answers = answer_fold(network, chests, others, fold=0)
    assert set(answers.kinds) == {FRONTAL, HANDLED, PHANTOM, *SPOILS, "white noise"}
    assert answers.frontal(FRONTAL).mean() > answers.frontal("white noise").mean()


def test_shrinking_averages() -> None:
    squares = (
        torch.arange(320 * 320, dtype=torch.float32).reshape(1, 1, 320, 320).remainder(256).to(torch.uint8)
    )
    assert shrink(squares, POOL).mean() == pytest.approx(float(squares.float().mean()) / 255, rel=1e-4)


# What is reported


def test_threshold_lets_most_frontal_pictures_pass() -> None:
    frontal = np.concatenate([np.full(10, 0.1), np.linspace(0.3, 1, 990)])
    chosen = choose_thresholds(frontal)
    assert (frontal < chosen["frontal_probability_min"]).mean() <= 0.011
    assert chosen["frontal_probability_min"] <= chosen["frontal_probability_sure"] < 1
    assert choose_thresholds(np.full(100, 0.999))["frontal_probability_min"] == 0.5


def _answers() -> Answers:
    """Two folds of frontal pictures, three unsure in the first, and of photographs, one of which passes."""
    rows = [(FRONTAL, fold, 0.3 if fold == 0 and i < 3 else 0.99) for fold in (0, 1) for i in range(100)]
    rows += [
        ("photographs", fold, 0.9 if fold == 1 and i == 0 else 0.01) for fold in (0, 1) for i in range(50)
    ]
    rows += [("inverted", 0, 0.02)] * 10
    looks = np.zeros((len(rows), len(APPEARANCES)), np.float32)
    for row, (kind, _, frontal) in enumerate(rows):
        looks[row, 0] = frontal
        looks[row, APPEARANCES.index("inverted" if kind == "inverted" else "other")] = 1 - frontal
    return Answers(tuple(kind for kind, _, _ in rows), tuple(fold for _, fold, _ in rows), looks)


def test_rates_are_counted_by_thresholds_of_other_folds() -> None:
    summary = summarise(_answers())
    # fold 0's limit comes from fold 1, where all are sure: 0.5; its three unsure pictures are refused
    assert summary["false_refusals"][FRONTAL] == {"pictures": 200, "refused": 0.015}
    assert summary["kinds"]["photographs"] == {"pictures": 100, "refused": 0.99, "named_rightly": 0.99}
    assert summary["kinds"]["inverted"]["named_rightly"] == 1.0
    assert summary["others"]["pictures"] == 110
    assert summary["others"]["least_of_kinds"] == 0.99


def test_card_tells_rates_sources_and_limits() -> None:
    quality = {"protocol": "A protocol of a test.", **summarise(_answers())}
    text = describe(quality)
    for figure in ("| photographs | 100 | 99.00% | 99.0% |", "1.50%", "A protocol of a test.", "mirrored"):
        assert figure in text
    for package in PACKAGES:
        assert package.licence in text
    assert describe(None) == ""
