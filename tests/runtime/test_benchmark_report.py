"""Pages out of benchmarks' files: any mix of them, and what is broken, partial or out of tolerance is told."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bedside.bench.report.drawing import figure_of
from bedside.bundle import Bundle
from bedside.provenance import BundleRef
from made_bench import FAILED, make_run
from tiny_bundle import make_bundle

for package in ("jinja2", "matplotlib"):
    pytest.importorskip(package, reason="needs the extra bench")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EVIL = "<script>alert(1)</script>"

Load = Callable[[str], ModuleType]
Make = Callable[..., Result]

STATE = {
    "power_mode": None,
    "clocks_mhz": {"cpu": [800, 3000]},
    "temperatures_c": {"package": 50.0},
    "load": 0.1,
}
MACHINE: dict[str, Any] = {
    "device": "A processor", "processor": "A processor", "flags": ["avx2"], "gpus": ["A GPU, driver 1"], "cores": 4,
    "cpu_limit": None, "threads": 2, "memory_mib": 4096, "system": "Linux", "python": "3.11.0",
    "versions": {"numpy": "2.0"}, "before": STATE, "after": STATE, "hottest_c": 60.0, "throttled": False,
    "throttled_by": [],
}  # fmt: skip


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def make(load: Load, tmp_path: Path) -> Make:
    """A page out of some objects, or bytes; the page is ``page.html``."""

    def make_page(*parts: object, options: tuple[str | Path, ...] = ()) -> Result:
        paths = []
        for number, part in enumerate(parts):
            paths.append(tmp_path / f"Doe-{number}.json")
            paths[-1].write_bytes(part if isinstance(part, bytes) else json.dumps(part).encode())
        arguments = [*map(str, paths), "--out", str(tmp_path / "page.html"), *map(str, options)]
        return CliRunner().invoke(load("report").main, arguments, catch_exceptions=False)

    return make_page


def make_side(median_ms: float, **changes: Any) -> dict[str, Any]:
    """A contender of `peers.py`."""
    return {
        "scope": "file to result", "warm": {"n": 6, "median_ms": median_ms, "p99_ms": 2 * median_ms},
        "cold_start_median_s": 1.5, "peak_memory_mib": 100.0, "installed_mib": 50.0, "lines": 4, "died": "",
        "times_faster": 2.0, "parity": None, **changes,
    }  # fmt: skip


def make_peers(**changes: Any) -> dict[str, Any]:
    """A report of `peers.py`."""

    def parity(extent: float, *, inside: bool) -> dict[str, Any]:
        return {
            "score_difference": {"extent": extent},
            "inside_tolerance": inside,
            "short": f"{extent} of a score",
        }

    return {
        "benchmark": "peers", "task": "cxr", "machine": MACHINE, "isa": "AVX2",
        "weights": {"trained": False, "source": "random:0"},
        "what": "2 X-rays, from file to scores", "unit": "xray", "divide_by": 1, "rounds": 3, "starts": 1,
        "complete": True, "left_out": {EVIL: "no such engine"}, "reference": "PyTorch eager",
        "bedside_fp32": "bedside onnxruntime fp32", "bedside_best": None,
        "sides": {
            "PyTorch eager": make_side(100.0),
            "autocast bf16": make_side(80.0, parity=parity(0.7, inside=False)),
            "benchmark_app fp32": make_side(20.0, scope="the network alone", died="it ended with 1 after 2 answers"),
            "bedside onnxruntime fp32": make_side(50.0, parity=parity(1e-6, inside=True)),
            "bedside openvino bf16": make_side(40.0, parity=parity(0.01, inside=True)),
        },
        **changes,
    }  # fmt: skip


def make_growth(axis: str, **changes: Any) -> dict[str, Any]:
    """A report of `growth.py`, of two points and an engine that is not here."""
    slices = axis == "slices"
    points = [
        {
            axis: at, "seconds": 2.0 * at if slices else [0.02 * at] * 5, "median_ms": 20.0 * at,
            "fastest_ms": 19.0 * at, "slowest_ms": 25.0 * at, "ms_per_picture": 20.0, "ms_per_slice": 2e3,
            "speed_up": at, "peak_memory_mib": 100.0 + at,
        }
        for at in (1, 8)
    ]  # fmt: skip
    curve = {"bundle": "tiny", "engine": "onnxruntime fp32", "why_not": "", "points": points}
    absent = {"bundle": "tiny", "engine": "openvino fp32", "why_not": "no such package", "points": []}
    return {
        "benchmark": "growth", "of": "any", "axis": axis, "rounds": 5, "machine": MACHINE, "complete": True,
        "curves": [curve, absent], **changes,
    }  # fmt: skip


def make_roofline(**changes: Any) -> dict[str, Any]:
    """A report of `roofline.py`: a network on one engine, and one that is not here."""
    layer = {"operations": 10**9, "weight_bytes": 10**6, "activation_bytes": 10**6, "ms": 10.0}
    stand = {
        "group": "net.1", "layers": 2, "precisions": ["fp32"], "kinds": ["conv"], "gflop": 2.0, "flop_per_byte": 500.0,
        "ms": 20.0, "gflop_per_s": 100.0, "gbytes_per_s": 0.2, "roof_ms": 15.0, "roof_gflop_per_s": 133.0,
        "share_of_roof": 0.75, "bound_by": "arithmetic", "lost_ms": 5.0,
    }  # fmt: skip
    own = {
        **stand,
        "group": "(engine's own)",
        "flop_per_byte": None,
        "gflop_per_s": 0.0,
        "share_of_roof": None,
    }
    ran = {
        "bundle": "tiny", "digest": "0" * 64, "engine": "onnxruntime fp32", "shape": [1, 1, 64, 64], "gflop": 2.0,
        "run_ms": 19.0, "total": {**stand, "group": "all"}, "groups": [stand, own], "layers": [layer, layer],
    }  # fmt: skip
    roof = {
        "peaks_gflops": {"fp32": 150.0},
        "triads": [{"mib": 1, "gb_per_s": 50.0}, {"mib": 256, "gb_per_s": 9.0}],
    }
    absent = {"bundle": "tiny", "digest": "0" * 64, "engine": "openvino fp16", "why_not": "no fp16 here"}
    return {
        "benchmark": "roofline",
        "runs": 3,
        "machine": MACHINE,
        "roof": roof,
        "networks": [ran, absent],
        **changes,
    }


def make_tuning(digest: str = "0" * 64, **changes: Any) -> dict[str, Any]:
    """A report of ``bedside tune``: one that passed, one out of tolerance, one that is not here."""
    passed = {
        "backend": "onnxruntime", "precision": "fp32", "threads": 1, "rank": 1, "verdict": "passed", "error": None,
        "doubt": None, "median_ms": 20.0, "p90_ms": 22.0, "open_s": 0.5, "peak_mib": 90.0, "runs": 8,
        "differences": [{"of": "extent", "difference": 1e-6, "tolerance": 0.01}],
    }  # fmt: skip
    wrong = {**passed, "precision": "int8", "rank": None, "verdict": "out of tolerance", "median_ms": 9.0,
             "differences": [{"of": "extent", "difference": 0.9, "tolerance": 0.25}]}  # fmt: skip
    absent = {**passed, "backend": "openvino", "rank": None, "verdict": "not here", "median_ms": None, "p90_ms": None,
              "error": {"code": "missing-extra", "message": "not installed"}, "differences": [], "runs": 0}  # fmt: skip
    return {
        "schema": "bedside.tuning/1", "bundle": {"name": "tiny", "version": "1", "digest": digest},
        "key": {"device": "a-processor"}, "made": "2026-01-01T00:00:00+00:00", "shape": [1, 1, 64, 64], "rounds": 8,
        "candidates": [passed, wrong, absent], **changes,
    }  # fmt: skip


def test_any_mix_of_files_makes_one_page(make: Make, tmp_path: Path) -> None:
    done = make(
        make_run().to_json(),
        make_peers(),
        make_roofline(),
        make_growth("threads"),
        make_tuning(),
        make_growth("slices"),
    )
    assert done.exit_code == 0, done.output
    text = (tmp_path / "page.html").read_text()
    assert {path.stem.removeprefix("page-") for path in tmp_path.glob("page-*.png")} == {
        "latency", "stages", "starts", "peers", "roofline-engines", "roofline-tiny", "growth-threads", "growth-slices",
        "tuning", "pareto-1", "pareto-2",
    }  # fmt: skip
    assert text.count("<img ") == text.count("data:image/png;base64,") == 11
    for part in ("Not for clinical use.", "median, ms/xray", "roof, GFLOP/s", "of the roof, %", "peak memory, MiB",
                 "OUT OF TOLERANCE", "DIED: it ended with 1", "the network alone", "no fp16 here", "no such package",
                 "MAY NOT BE USED: out of tolerance", "A GPU, driver 1", "clock cpu, MHz", "NOT HERE",
                 "&lt;script&gt;alert(1)&lt;/script&gt; is left out"):  # fmt: skip
        assert part in text
    assert EVIL not in text
    assert "Doe-" not in text + done.output


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (b"", "[empty-file]"),
        (b"{", "no whole result"),
        (b"[]", "the whole is no object"),
        (b'{"schema": "bedside.severity/1"}', "the file is of 'bedside.severity/1'; give what bedside bench"),
        (b'{"benchmark": "steady"}', "the file is of 'steady'"),
        (b"{}", "the file does not say what it is"),
        (b'{"benchmark": "peers"}', "machine is missing"),
        (b'{"schema": "bedside.bench/1"}', "the file holds no run of bedside bench"),
        (json.dumps(make_growth("metres")).encode(), "no axis &#39;metres&#39; is known"),
        (json.dumps(make_growth("slices", curves=[{"bundle": 1}])).encode(), "curves[0].bundle is no text"),
        (json.dumps(make_peers(divide_by=0)).encode(), "divide_by is not over 0"),
        (
            json.dumps(make_peers(sides={"PyTorch eager": make_side(float("nan"))})).encode(),
            "NaN is no JSON number",
        ),
        (json.dumps(make_tuning(candidates=3)).encode(), "candidates is no list"),
        (json.dumps(make_roofline(runs=True)).encode(), "runs is no number"),
    ],
)
def test_file_that_can_not_be_drawn_is_told_on_the_page(
    part: bytes, told: str, make: Make, tmp_path: Path
) -> None:
    done = make(part)
    assert done.exit_code == 1
    text = (tmp_path / "page.html").read_text()
    assert "NOT READ: nothing of this file is on the page" in text
    assert told in text + done.output
    assert "file 1 of 1: " in done.output
    assert "Doe-" not in text + done.output


def test_file_that_is_not_there_is_told_and_the_others_are_drawn(make: Make, tmp_path: Path) -> None:
    done = make(make_growth("pictures"), options=(tmp_path / "none.json",))
    assert done.exit_code == 1
    assert "file 2 of 2: no such file" in done.output
    assert (tmp_path / "page-growth-pictures.png").is_file()


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (make_growth("megapixels", complete=False), "NOT COMPLETE"),
        (make_growth("pictures", complete=False, curves=[]), "NOT COMPLETE"),
        (
            make_peers(machine={**MACHINE, "throttled": True, "throttled_by": ["heat"]}),
            "held its clocks down (heat)",
        ),
        (
            make_roofline(machine={key: value for key, value in MACHINE.items() if key != "after"}),
            "NOT COMPLETE",
        ),
        (make_roofline(networks=[]), "What this machine reached at most"),
        (make_tuning(candidates=[make_tuning()["candidates"][2]]), "NONE QUALIFIED"),
    ],
)
def test_run_that_is_partial_or_throttled_says_so(
    part: object, told: str, make: Make, tmp_path: Path
) -> None:
    done = make(part)
    assert done.exit_code == 0, done.output
    assert told in (tmp_path / "page.html").read_text()


def test_front_holds_what_no_other_beats(load: Load) -> None:
    front = load("report_pareto").find_front([(3.0, 1.0), (1.0, 5.0), (2.0, 5.0), (4.0, 2.0), (2.5, 0.5)])
    assert front == [(1.0, 5.0), (2.5, 0.5)]


def test_points_that_may_not_be_used_are_none_of_the_best(load: Load) -> None:
    points, fields = load("report_points"), load("report_fields")
    found = points.points_of_tuning(fields.Fields.of(make_tuning()), {})
    assert [(point.name, bool(point.wrong)) for point in found] == [
        ("onnxruntime fp32, 1 thread, tiny", False),
        ("onnxruntime int8, 1 thread, tiny", True),
    ]
    (failed,) = points.points_of_run(make_run(valid=False, parity=FAILED, reasons=("it throttled",)), {})
    assert failed.wrong == "it throttled"
    assert failed.gaps == {"extent": 0.5, "opacity": None}
    throttled = make_peers(machine={**MACHINE, "throttled": True})
    assert all(point.wrong for point in points.points_of_peers(fields.Fields.of(throttled)))


def test_bundle_at_hand_tells_differences_on_more_inputs(load: Load, tmp_path: Path) -> None:
    points = load("report_points")
    path = make_bundle(tmp_path / "b")
    knowledge = points.read_knowledge([str(path)])
    bundle = Bundle.open(path)
    assert knowledge == {bundle.digest: points.Knowledge({}, {})}  # its parity report is empty
    built_in = points.read_knowledge(["cxr-severity-lite"])
    digest = next(iter(built_in))
    (point,) = points.points_of_run(make_run(bundle=BundleRef("lite", "1", digest)), built_in)
    assert point.against == "99th percentile on real pictures, at export"
    assert set(point.gaps) == set(point.errors) == {"extent", "opacity"}
    error, spread = point.errors["extent"]
    assert 0 < error < 8
    assert spread == 0.0  # of the reference itself
    engines = built_in[digest].engines
    assert all(0 <= spread <= 8 for known in engines.values() for spread in known.spread.values())


def test_ct_differences_are_the_volume_and_the_worst_tissue(load: Load) -> None:
    points = load("report_points")
    (knowledge,) = points.read_knowledge(["ct-opacity-lite"]).values()
    known = knowledge.engines["onnxruntime", "fp16"]
    assert set(known.gaps) == {points.VOLUME, points.DICE}
    assert 0 < knowledge.errors[points.OPACITY] < 1
    fields = load("report_fields").Fields
    parity = {"dice": {"lung": 0.99, "opacity": 0.9, "none": None}, "opacity_volume_percent": 1.5,
              "inside_tolerance": True, "short": ""}  # fmt: skip
    (point,) = points.points_of_peers(fields.of(make_peers(sides={"MONAI": make_side(9.0, parity=parity)})))
    assert point.gaps == {points.VOLUME: 1.5, points.DICE: pytest.approx(0.1)}


def test_numbers_hide_no_point_and_no_other_number(load: Load) -> None:
    figure, ((axes,),) = figure_of(1, 1, 4.0)
    places = [(1.0, 1.0), (1.02, 1.0), (1.04, 1.01), (1.0, 1.03), (5.0, 5.0)]
    axes.set(xlim=(0, 6), ylim=(0, 6))
    figure.draw_without_rendering()
    load("report_labels").place_numbers(axes, [(*place, number) for number, place in enumerate(places, 1)])
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3", "4", "5"]
    middles = [axes.transData.transform(place) for place in places]
    assert not any(box.contains(*middle) for box in boxes for middle in middles)
    assert not any(one.overlaps(other) for one in boxes for other in boxes if one is not other)


def test_report_needs_neither_torch_nor_an_engine() -> None:
    code = "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxruntime', 'openvino')))\nimport report"
    path = [str(BENCHMARKS), *(entry for entry in sys.path if entry.endswith("/runtime"))]
    code = f"import sys; sys.path[:0] = {path!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_page_that_can_not_be_written_is_told(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = make(make_tuning(), options=("--out", tmp_path / "file" / "page.html"))
    assert done.exit_code == 1
    assert "Error: " in done.output


def test_bundle_that_is_none_is_told(make: Make, tmp_path: Path) -> None:
    done = make(make_tuning(), options=("--bundle", tmp_path / "none"))
    assert done.exit_code == 2
    assert not (tmp_path / "page.html").exists()
