"""What a plan is for: whatever differs makes another key, and is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import bedside
from bedside.backends import Tuning
from bedside.bundle import Bundle
from bedside.tuning import key_for
from bedside.tuning.key import installed_engines
from made_plans import KEY, OTHERS
from tiny_bundle import make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


def test_key_names_bundle_engines_device_and_set_up(bundle: Bundle) -> None:
    key = key_for(bundle, threads=2, tuning=Tuning(tile=(64, 64), batch=4))
    assert key.bundle == bundle.digest
    assert key.bedside == bedside.__version__
    assert key.engines == installed_engines()
    assert (key.threads, key.tile, key.batch) == (2, (64, 64), 4)
    assert key.device
    assert key == key_for(bundle, threads=2, tuning=Tuning(tile=(64, 64), batch=4))
    assert key.digest == key_for(bundle, threads=2, tuning=Tuning(tile=(64, 64), batch=4)).digest


def test_cache_folder_and_progress_are_no_part_of_the_key(bundle: Bundle, tmp_path: Path) -> None:
    assert key_for(bundle) == key_for(bundle, tuning=Tuning(cache=tmp_path, progress=print))


def test_versions_are_those_that_the_engines_say() -> None:
    for package, version in installed_engines().items():
        library = pytest.importorskip(package)
        assert library.__version__.startswith(version.split(" ")[0])


@pytest.mark.parametrize("told", OTHERS)
def test_whatever_differs_makes_another_key_and_is_told(told: str) -> None:
    now = replace(KEY, **OTHERS[told])
    assert now.digest != KEY.digest
    (difference,) = KEY.differences(now)
    assert told in difference
    assert list(now.differences(now)) == []
