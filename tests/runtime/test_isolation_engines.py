"""Every engine answers in a process of its own as it does here."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from bedside.backends import BACKENDS, Backend, open_backend
from bedside.bundle import Bundle
from bedside.errors import BackendError, MissingExtraError
from bedside.isolation import IsolatedBackend
from tiny_bundle import golden_images, make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "b"))


@pytest.mark.parametrize("name", BACKENDS)
def test_answers_are_those_of_the_engine_here(name: str, bundle: Bundle) -> None:
    pytest.importorskip(BACKENDS[name].package)
    images = golden_images()
    try:
        here: Backend = open_backend(name, bundle, threads=1)
    except BackendError as error:
        pytest.skip(error.code)
    with IsolatedBackend(name, bundle, threads=1) as there:
        assert there.info == here.info
        for batch in (images[:1], images, images[1:2]):
            expected, given = here.run({"image": batch}), there.run({"image": batch})
            assert list(given) == list(expected)
            for output, values in expected.items():
                np.testing.assert_array_equal(given[output], values)
                assert given[output].dtype == values.dtype
    here.close()


def test_engine_that_is_not_installed_is_told_as_without_isolation(bundle: Bundle) -> None:
    missing = [name for name, leaf in BACKENDS.items() if find_spec(leaf.package) is None]
    if not missing:
        pytest.skip("all engines are installed")
    with pytest.raises(MissingExtraError) as here:
        open_backend(missing[0], bundle)
    with pytest.raises(MissingExtraError) as there:
        IsolatedBackend(missing[0], bundle)
    assert there.value.message == here.value.message
