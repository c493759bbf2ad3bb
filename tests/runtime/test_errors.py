"""The error tree: stable codes, builtin bases, messages that survive a process boundary."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest

import bedside
from bedside import errors
from bedside.errors import (
    CODES,
    BackendError,
    BedsideError,
    BundleError,
    InputError,
    InternalError,
    LimitError,
    MissingExtraError,
    NodeError,
    OutputError,
    RefusedError,
)

BASES = {
    InputError: ValueError,
    RefusedError: ValueError,
    BundleError: ValueError,
    BackendError: RuntimeError,
    MissingExtraError: ImportError,
    OutputError: OSError,
    LimitError: RuntimeError,
    NodeError: RuntimeError,
    InternalError: RuntimeError,
}


def quoted_in_source() -> set[str]:
    """Every quoted lower-case word of the runtime, but for the table of codes itself."""
    folder = Path(bedside.__file__).parent
    texts = [path.read_text("utf-8") for path in folder.rglob("*.py") if path.name != "errors.py"]
    texts.append((folder / "errors.py").read_text("utf-8").partition('"""Error code ->')[2])
    return set(re.findall(r'"([a-z][a-z0-9-]*)"', "\n".join(texts)))


def raised_in_source() -> set[str]:
    """First argument of every error that is raised with a literal code."""
    raised = re.compile(rf"(?:{'|'.join(kind.__name__ for kind in BASES)})\(\s*\"([^\"]*)\"")
    folder = Path(bedside.__file__).parent
    return {code for path in folder.rglob("*.py") for code in raised.findall(path.read_text("utf-8"))}


def test_every_code_raised_is_listed() -> None:
    assert len(raised_in_source()) > 10
    assert raised_in_source() <= CODES.keys()


def test_every_code_listed_is_used() -> None:
    assert CODES.keys() - quoted_in_source() == set()


def test_codes_are_lower_case_words_with_a_meaning() -> None:
    for code, meaning in CODES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
        assert meaning


def test_tree_holds_every_error() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert kinds == {BedsideError, *BASES}


@pytest.mark.parametrize(("kind", "builtin"), BASES.items())
def test_error_is_also_its_builtin(kind: type[BedsideError], builtin: type[Exception]) -> None:
    error = kind("internal", "what is wrong; what to do")
    assert isinstance(error, builtin)
    assert isinstance(error, BedsideError)
    assert str(error) == error.message == "what is wrong; what to do"
    assert error.code == "internal"


@pytest.mark.parametrize("kind", BASES)
def test_error_survives_pickling_and_copying(kind: type[BedsideError]) -> None:
    error = kind("internal", "what is wrong; what to do")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert type(twin) is kind
        assert (twin.code, twin.message, str(twin)) == (error.code, error.message, error.message)


def test_only_a_refusal_is_a_refusal() -> None:
    assert [kind for kind in BASES if kind.refusal] == [RefusedError]


def test_unknown_code_is_a_defect() -> None:
    with pytest.raises(ValueError, match="no-such-code"):
        InputError("no-such-code", "text")


def test_missing_extra_names_package_and_extra() -> None:
    error = MissingExtraError.of("onnxruntime", "cpu", "the backend 'onnxruntime'")
    assert error.code == "missing-extra"
    assert "'onnxruntime'" in error.message
    assert "pip install 'bedside[cpu]'" in error.message
    assert error.msg == error.message
