from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from PIL import Image

from bedside.backends import Backend, FakeBackend, open_backend
from bedside.bundle import Bundle
from bedside.errors import BackendError, BundleError
from bedside.fitness import doubt_engine
from bedside.manifest import Manifest
from bedside.verification import verify_golden
from bedside_export.errors import ExportError, ParityError
from bedside_export.heads import published_head
from bedside_export.models import Classifier, SeverityDenseNet
from bedside_export.precision import makers, variants, workbench
from bedside_export.precision.gauge import Reference, ask, check_finite, measure
from bedside_export.precision.graph import find_layers, parse
from bedside_export.precision.material import Material, make_material, split
from bedside_export.precision.process import write_quantised
from bedside_export.precision.quantisation import CALIBRATIONS, quantise
from bedside_export.precision.report import EngineTrial
from bedside_export.precision.variants import Options, Quantised, add_precisions
from bedside_export.precision.workbench import Contents, stage
from bedside_export.severity import Naming, draft_severity
from bedside_export.writer import write_bundle
from tiny_bundle import Network, make_bundle
from tiny_ct_bundle import ThresholdNetwork, golden_slices, make_ct_bundle

Pictures = npt.NDArray[np.float32]


def smooth(seed: int, side: int) -> Pictures:
    """``(1, 1, side, side)`` in the range of torchxrayvision."""
    random = np.random.Generator(np.random.PCG64(seed))
    coarse = Image.fromarray(random.uniform(-1024, 1024, (6, 6)).astype(np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)[None, None]


@pytest.fixture(scope="module")
def bundle(
    classify: Callable[..., Classifier], pictures: Pictures, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """A small DenseNet of torchxrayvision's, 64 x 64."""
    out = tmp_path_factory.mktemp("written") / "bundle"
    draft = draft_severity(classify(), published_head(), Naming())
    write_bundle(draft, SeverityDenseNet(classify(), published_head()), pictures, out=out)
    return Bundle.open(out)


@pytest.fixture(scope="module")
def halves() -> tuple[Material, Material]:
    """Pictures to calibrate and to compare on."""
    return split(make_material((smooth(seed, 64), seed) for seed in range(80)))


@pytest.fixture(scope="module")
def quantised(bundle: Bundle, halves: tuple[Material, Material]) -> Quantised:
    return add_precisions(bundle, *halves, Options(("fp16", "int8")))


@pytest.fixture(scope="module")
def written(quantised: Quantised, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("quantised") / "bundle.zip"
    write_quantised(quantised, out=out)
    return Bundle.open(out)


def test_the_bundle_has_the_files_and_tolerances_that_were_asked_for(written: Bundle, bundle: Bundle) -> None:
    manifest = written.manifest
    assert set(manifest.models) == {"fp32", "fp16", "int8"}
    assert manifest.tolerances["fp16"] == {"extent": 0.1, "opacity": 0.1}
    assert manifest.tolerances["int8"] == {"extent": 0.25, "opacity": 0.25}
    assert manifest.tolerances["fp32"] == bundle.manifest.tolerances["fp32"]
    sizes = {precision: manifest.files[name].bytes for precision, name in manifest.models.items()}
    assert sizes["fp16"] < sizes["fp32"]  # int8 saves nothing of a network this small
    assert written.read(manifest.models["fp32"]) == bundle.read(bundle.manifest.models["fp32"])


def test_each_file_answers_within_its_tolerance(written: Bundle) -> None:
    for precision in ("fp16", "int8"):
        engine = open_backend("onnxruntime", written, precision=precision)
        assert verify_golden(written, engine).passed
        engine.close()


def test_the_report_says_of_every_engine_how_far_it_is_off(written: Bundle, quantised: Quantised) -> None:
    report = json.loads(written.read("parity.json"))
    found = {(each["backend"], each["precision"]): each for each in report["engines"]}
    assert found.keys() >= {("onnxruntime", p) for p in ("fp32", "fp16", "int8")}
    for trial in quantised.trials:
        each = found[trial.backend, trial.precision]
        assert each["status"] == trial.status
        if trial.status == "passed":
            assert set(each["real"]) == set(each["golden"]) == {"extent", "opacity"}
            for gap in each["real"].values():
                assert 0 <= gap["p50"] <= gap["p99"] <= gap["worst"]
                assert gap["p99"] <= gap["limit"]
    assert found["onnxruntime", "fp32"]["scores"]["extent"]["limit"] == 0.01  # PyTorch's comparison is kept
    assert report["calibration"]["images"] == report["validation"]["images"] == 40
    assert report["calibration"]["sha256"] != report["validation"]["sha256"]
    assert report["made"]["int8"]["trials"] >= 0
    assert report["left_out"] == []
    engine = open_backend("onnxruntime", written, precision="int8")
    assert doubt_engine(written, engine.info) == ()
    engine.close()


def test_the_same_pictures_give_the_same_bundle(
    quantised: Quantised, bundle: Bundle, halves: tuple[Material, Material]
) -> None:
    again = add_precisions(bundle, *halves, Options(("fp16", "int8")))
    assert again.contents.files == quantised.contents.files
    assert again.contents.sealed() == quantised.contents.sealed()


def test_a_precision_that_is_there_is_refused_unless_it_is_forced(written: Bundle) -> None:
    with pytest.raises(ExportError, match="the bundle has fp16, int8 already; add --force"):
        add_precisions(written, *split(make_material([])), Options(("fp16", "int8")))


def test_a_precision_that_no_engine_runs_well_enough_is_left_out_and_told(
    bundle: Bundle, halves: tuple[Material, Material], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(trial: EngineTrial, **_: object) -> str:
        return "failed" if trial.precision == "fp16" else "passed"

    monkeypatch.setattr(EngineTrial, "status", property(spoil))
    kept = add_precisions(bundle, *halves, Options(("fp16",), keep_failing=True))
    assert kept.left_out == ()
    assert "fp16" in kept.contents.manifest.models
    left = add_precisions(bundle, *halves, Options(("fp16",)))
    assert left.left_out == ("fp16",)
    assert set(left.contents.manifest.models) == {"fp32"}
    assert "fp16" not in left.contents.manifest.tolerances
    assert "model-fp16.onnx" not in left.contents.files
    assert json.loads(left.contents.files["parity.json"])["left_out"] == ["fp16"]


def test_layers_that_cost_the_answer_stay_float32(
    bundle: Bundle,
    halves: tuple[Material, Material],
    quantised: Quantised,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = json.loads(quantised.contents.files["parity.json"])
    least = 0.8 * 0.25 * report["made"]["int8"]["share_of_tolerance_without"]
    layers = find_layers(parse(bundle.read("model.onnx")))
    monkeypatch.setitem(variants.TOLERANCES["cxr-severity"], "int8", least)
    strict = add_precisions(bundle, *halves, Options(("int8",), keep_failing=True))
    made = json.loads(strict.contents.files["parity.json"])["made"]["int8"]
    assert 0 < len(made["float32_nodes"]) < len(layers)
    assert set(made["float32_nodes"]) < set(layers)
    assert made["share_of_tolerance"] < made["share_of_tolerance_without"]


def test_the_report_says_which_ranges_were_tried_and_taken(quantised: Quantised) -> None:
    made = json.loads(quantised.contents.files["parity.json"])["made"]["int8"]
    tried = made["share_of_tolerance_by_ranges"]
    assert list(tried) == [str(calibration) for calibration in CALIBRATIONS]
    assert made["ranges"] == min(tried, key=tried.__getitem__)
    assert len(set(tried.values())) > 1


def test_int8_is_judged_on_pictures_that_its_ranges_were_not_taken_from(
    bundle: Bundle, halves: tuple[Material, Material], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated: list[set[bytes]] = []
    judged: list[set[bytes]] = []

    def noted(model: onnx.ModelProto, images: Sequence[Pictures], **how: Any) -> onnx.ModelProto:
        calibrated.append({image.tobytes() for image in images})
        return quantise(model, images, **how)

    def measured(manifest: Manifest, engine: Backend, reference: Reference, limits: dict[str, float]) -> Any:
        judged.append({image.tobytes() for image in reference.material.images})
        return measure(manifest, engine, reference, limits)

    monkeypatch.setattr(
        makers, "quantise", lambda model, images, _keep=(), **how: noted(model, images, **how)
    )
    monkeypatch.setattr(makers, "measure", measured)
    add_precisions(bundle, *halves, Options(("int8",), trials=1))
    *tried, last = calibrated
    assert [len(images) for images in tried] == [20] * len(CALIBRATIONS)
    assert len(last) == 40
    assert len(judged) == len(CALIBRATIONS) + 1  # each way, and where the search begins
    assert set().union(*tried).isdisjoint(set().union(*judged))


def test_a_reference_that_fails_leaves_no_bundle(quantised: Quantised, tmp_path: Path) -> None:
    broken = Quantised(quantised.contents, (EngineTrial("onnxruntime", "fp32", broken="it fell over"),))
    with pytest.raises(ParityError, match="it fell over"):
        write_quantised(broken, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_bundle_are_put_in_and_taken_out_whole(bundle: Bundle, tmp_path: Path) -> None:
    contents = Contents.of(bundle)
    with pytest.raises(BundleError, match="tolerances has no int8"):
        contents.with_model("int8", bundle.read("model.onnx"))
    tolerances = {**contents.manifest.tolerances, "int8": {"extent": 1.0, "opacity": 1.0}}
    allowed = Contents(replace(contents.manifest, tolerances=tolerances), contents.files)
    more = allowed.with_model("int8", bundle.read("model.onnx"))
    assert set(stage(more, tmp_path / "stage").manifest.models) == {"fp32", "int8"}
    less = more.without_model("int8")
    assert stage(less, tmp_path / "stage").manifest == bundle.manifest
    assert not (tmp_path / "stage" / "model-int8.onnx").exists()


def _fake(bundle: Bundle, network: Network, *, offset: float) -> FakeBackend:
    def respond(inputs: object) -> dict[str, Pictures]:
        (image,) = dict(inputs).values()  # type: ignore[call-overload]
        answers = network.run(image)
        return {**answers, "severity": answers["severity"] + np.float32(offset) * (image.mean() > 0)}

    return FakeBackend(respond)


def test_scores_are_measured_by_their_99th_percentile_and_their_worst(tmp_path: Path) -> None:
    network = Network()
    bundle = Bundle.open(make_bundle(tmp_path / "tiny", network=network))
    images = [np.full((1, 1, 32, 32), value, np.float32) for value in np.linspace(-500, -1, 300)]
    material = make_material((image, place) for place, image in enumerate([*images, images[0] * -1]))
    reference = ask(bundle.manifest, _fake(bundle, network, offset=0), material)
    limits = {"extent": 0.1, "opacity": 0.1}
    extent, opacity = measure(bundle.manifest, _fake(bundle, network, offset=0.5), reference, limits)
    assert (extent.name, opacity.name) == ("extent", "opacity")
    assert extent.median == extent.difference == 0  # one picture of 301
    assert extent.worst == pytest.approx(0.5)
    assert extent.share == 0


def test_what_is_not_finite_is_infinitely_far_and_found_by_its_input(tmp_path: Path) -> None:
    network = Network()
    bundle = Bundle.open(make_bundle(tmp_path / "tiny", network=network))
    images = [np.full((1, 1, 32, 32), value, np.float32) for value in (-5, 5)]
    material = make_material((image, place) for place, image in enumerate(images))
    engine = _fake(bundle, network, offset=np.nan)
    reference = ask(bundle.manifest, _fake(bundle, network, offset=0), material)
    gaps = measure(bundle.manifest, engine, reference, {"extent": 0.1, "opacity": 0.1})
    assert all(gap.share == np.inf for gap in gaps)
    assert check_finite(bundle.manifest, engine, images) == [0, 1]
    with pytest.raises(BackendError, match="the reference answers with NaN"):
        ask(bundle.manifest, engine, material)


def test_tissues_are_measured_over_all_and_by_the_worst_scan(tmp_path: Path) -> None:
    network = ThresholdNetwork()
    bundle = Bundle.open(make_ct_bundle(tmp_path / "tiny", network=network))
    slices = golden_slices(network)
    material = make_material((slices[i : i + 1], i) for i in range(len(slices)))
    right = FakeBackend(lambda inputs: network.run(inputs["slice"]))
    reference = ask(bundle.manifest, right, material)
    limits = {"dice_loss": 0.005, "volume_percent": 0.5}
    same = measure(bundle.manifest, right, reference, limits)
    assert same[0].name == "opacity volume in percent"
    assert all(gap.difference == 0 == gap.worst for gap in same)
    other = measure(
        bundle.manifest,
        FakeBackend(lambda inputs: network.run(np.clip(inputs["slice"] + 0.1, 0, 1))),
        reference,
        limits,
    )
    assert max(gap.share for gap in other) > 1
    assert all(gap.worst > 0 for gap in other if gap.difference > 0)


def test_the_command_names_what_can_be_added() -> None:
    module = import_module("bedside_export.cli.quantize")  # in the package its name is that of the command
    assert module.PRECISIONS == variants.PRECISIONS


def test_every_engine_and_precision_that_is_tried_can_be_asked_for() -> None:
    from bedside.backends import BACKENDS, PRECISIONS

    for backend, precision in workbench.ENGINES:
        assert backend in BACKENDS
        assert precision in PRECISIONS
    assert workbench.ENGINES[0] == ("onnxruntime", "fp32")


def test_a_trial_says_why_it_failed() -> None:
    trial = EngineTrial("openvino", "int8", not_finite=("ramp",))
    assert trial.status == "failed"
    assert trial.reason == "NaN or infinity on: ramp"
    assert trial.share == np.inf
    assert EngineTrial("openvino", "bf16", unavailable="no bf16 here").status == "not-run"
