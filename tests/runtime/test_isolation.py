"""An engine in a process of its own answers as it does here, and its errors come as they are."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bedside.backends import Tuning, open_backend
from bedside.bundle import Bundle
from bedside.dicom.ledger import GeometryError
from bedside.errors import BackendError, BedsideError, BundleError, InternalError, RefusedError
from bedside.isolation import IsolatedBackend, Limits
from bedside.isolation.wire import pack_error, unpack_error
from bedside.memory import held_bytes
from isolated_engines import crashing, nothing_left, picture
from tiny_bundle import MODEL, make_bundle, seal


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "someone's bundle")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return Bundle.open(folder)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with nothing_left():
        yield


# Right answers


def test_arrays_of_any_size_order_and_type_pass(bundle: Bundle) -> None:
    with crashing("good", bundle) as engine:
        for number in (1, 3, 1, 200, 2):
            images = picture(number=number)
            turned = np.asfortranarray(images)
            turned.flags.writeable = False
            for given in (images, turned):
                outputs = engine.run({"image": given})
                np.testing.assert_array_equal(outputs["seen"], images[:, :, ::-1])
                np.testing.assert_array_equal(
                    outputs["largest"], images.max(axis=(1, 2, 3)).astype(np.float64)
                )
                assert outputs["largest"].dtype == np.float64


def test_python_without_memfd_shares_memory_all_the_same(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with crashing("good", bundle) as engine:
        for number in (1, 40, 2):
            outputs = engine.run({"image": picture(number=number)})
            np.testing.assert_array_equal(outputs["seen"], picture(number=number)[:, :, ::-1])
    monkeypatch.setattr("bedside.isolation.memory._MEMORY", "/nowhere")
    with pytest.raises(BackendError) as caught:
        crashing("good", bundle)
    assert caught.value.code == "engine-unsupported"


def test_outputs_belong_to_the_caller(bundle: Bundle) -> None:
    with crashing("good", bundle) as engine:
        first = engine.run({"image": picture()})
        kept = {name: values.copy() for name, values in first.items()}
        engine.run({"image": picture(number=30)})
        for name, values in first.items():
            np.testing.assert_array_equal(values, kept[name])
            values[:] = -1
        np.testing.assert_array_equal(engine.run({"image": picture()})["severity"], kept["severity"])
    assert first["severity"].flags.owndata


def test_input_is_checked_before_it_is_sent(bundle: Bundle) -> None:
    with crashing("good", bundle) as engine:
        process = engine.process
        for wrong in (
            {},
            {"image": picture()[0]},
            {"other": picture()},
            {"image": picture().astype(np.float64)},
        ):
            with pytest.raises(BackendError) as caught:
                engine.run(wrong)  # type: ignore[arg-type]
            assert caught.value.code == "engine-failed"
        assert engine.process == process


def test_info_is_what_runs_there(bundle: Bundle) -> None:
    name = "crashing_engines:good"
    with IsolatedBackend(name, bundle, precision="int8", threads=3) as engine:
        info = engine.info
    assert (info.backend, info.version, info.precision, info.threads) == ("stand-in", "1.2", "int8", 3)
    assert engine.info == info


def test_tuning_reaches_the_engine_and_its_progress_comes_back(bundle: Bundle, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    tuning = Tuning(
        hint="throughput",
        batch=3,
        tile=(64, 96),
        cache=tmp_path,
        workspace_bytes=1 << 30,
        progress=lambda *step: told.append(step),
    )
    with IsolatedBackend("crashing_engines:tells_tuning", bundle, tuning=tuning) as engine:
        assert engine.info.device == repr(tuning)
    with IsolatedBackend("crashing_engines:tells_progress", bundle, tuning=tuning):
        pass
    assert told == [("building", 1, 3), ("building", 2, 3), ("building", 3, 3)]


def test_zipped_bundle_and_another_working_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_bundle import zip_bundle

    zip_bundle(folder, tmp_path / "b.zip")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit('the working directory is no place for modules')")
    with crashing("good", Bundle.open("b.zip")) as engine:
        assert engine.run({"image": picture()})["severity"].shape == (1, 2)


# Errors


def test_errors_come_as_they_are(bundle: Bundle) -> None:
    with crashing("fails", bundle) as engine:
        process = engine.process
        with pytest.raises(BackendError, match=r"^no kernel for this layer; use another$") as caught:
            engine.run({"image": picture(0)})
        assert caught.value.code == "engine-failed"
        engine.run({"image": picture()})
        assert engine.process == process
    with pytest.raises(RefusedError, match=r"^an error of another class$") as refused:
        crashing("refuses_opening", bundle)
    assert refused.value.code == "not-hu"


def test_surprise_there_is_a_defect_and_tells_nothing_of_the_data(bundle: Bundle) -> None:
    with crashing("breaks", bundle) as engine, pytest.raises(InternalError) as caught:
        engine.run({"image": picture(0)})
    assert "a surprise" not in caught.value.message
    assert "KeyError at crashing_engines.py:" in caught.value.message
    with pytest.raises(InternalError):
        crashing("breaks_opening", bundle)


@pytest.mark.parametrize(
    ("name", "precision", "code"),
    [("nothing", "fp32", "engine-unsupported"), ("onnxruntime", "int8", "bundle-precision")],
)
def test_what_is_not_there_is_told_as_without_isolation(
    name: str, precision: str, code: str, bundle: Bundle
) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(BedsideError) as here:
        open_backend(name, bundle, precision=precision)
    with pytest.raises(BedsideError) as there:
        IsolatedBackend(name, bundle, precision=precision)
    assert (type(there.value), there.value.code, there.value.message) == (
        type(here.value),
        here.value.code,
        here.value.message,
    )
    assert there.value.code == code


def test_bundle_that_was_changed_since_is_not_run(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    bundle = Bundle.open(folder)
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes() + b"\x7a\x00")
    seal(folder)
    Bundle.open(folder)
    with pytest.raises(BundleError) as caught:
        crashing("good", bundle)
    assert caught.value.code == "bundle-altered"


def test_error_of_a_kind_of_its_own_arrives_as_the_kind_that_it_is_of() -> None:
    error = unpack_error(pack_error(GeometryError("improper-geometry", "no volume", ())))
    assert (type(error), error.code, error.refusal) == (RefusedError, "improper-geometry", True)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_limit_is_a_time(seconds: float) -> None:
    for limits in ({"open_s": seconds}, {"run_s": seconds}):
        with pytest.raises(BackendError) as caught:
            Limits(**limits)
        assert caught.value.code == "engine-unsupported"


# The process


def test_ctrl_c_is_not_the_engines(bundle: Bundle) -> None:
    """The terminal sends it to the group in the foreground, which the engine's process is not in."""
    with crashing("good", bundle) as engine:
        process = engine.process
        assert process is not None
        assert os.getpgid(process) == process == os.getsid(process)


def test_memory_of_the_engine_counts(bundle: Bundle) -> None:
    before = held_bytes()
    with crashing("good", bundle) as engine:
        engine.run({"image": picture()})
        assert held_bytes() > before + (5 << 20)


def test_engine_starts_in_an_environment_of_its_own(bundle: Bundle) -> None:
    """A thread that ends must not take the engine along that it opened."""
    import threading

    opened: list[IsolatedBackend] = []
    thread = threading.Thread(target=lambda: opened.append(crashing("good", bundle)))
    thread.start()
    thread.join()
    time.sleep(0.2)
    with opened[0] as engine:
        assert engine.run({"image": picture()})["severity"].shape == (1, 2)
