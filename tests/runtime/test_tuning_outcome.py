"""The ranking of what was tried: of what passed, the fastest, or the more exact within the noise."""

from __future__ import annotations

from dataclasses import replace

from bedside.backends import EngineInfo
from bedside.errors import BackendError
from bedside.tuning import Candidate, Outcome
from bedside.tuning.outcome import NOISE, rank
from bedside.verification import Agreement, Verdict


def passed(precision: str, *times_ms: float, backend: str = "openvino") -> Outcome:
    engine = EngineInfo(backend, "1", precision, "CPU", None)
    verdict = Verdict(engine, 3, (Agreement("extent", 0.05, 0.1), Agreement("opacity", 0.02, 0.1)))
    return Outcome(Candidate(backend, precision), engine, verdict, times_ms=times_ms)


def order(*outcomes: Outcome) -> list[str]:
    return [each.candidate.precision for each in rank(outcomes)]


def test_fastest_by_median_is_the_best() -> None:
    assert order(passed("fp32", 30, 31, 32), passed("int8", 9, 10, 90), passed("bf16", 15, 16, 17)) == [
        "int8",
        "bf16",
        "fp32",
    ]


def test_within_the_noise_the_more_exact_is_the_best() -> None:
    near = 10 * (1 + NOISE) - 0.01
    assert order(passed("int8", 10.0), passed("bf16", near), passed("fp32", near)) == ["fp32", "bf16", "int8"]
    assert order(passed("int8", 10.0), passed("fp32", 10 * (1 + NOISE) + 0.01)) == ["int8", "fp32"]


def test_of_equally_exact_ones_the_faster_is_the_best() -> None:
    ranked = rank([passed("fp32", 10.1), passed("fp32", 10.0, backend="onnxruntime")])
    assert [each.candidate.backend for each in ranked] == ["onnxruntime", "openvino"]


def test_what_did_not_pass_has_no_rank() -> None:
    good = passed("fp32", 10.0)
    assert good.verdict is not None
    bad = replace(good.verdict, agreements=(Agreement("extent", 0.2, 0.1),))
    others = [
        replace(good, verdict=bad),
        replace(good, verdict=None),
        replace(good, doubt="left the tolerance"),
        replace(good, error=BackendError("engine-crashed", "it died")),
        replace(good, times_ms=()),
    ]
    assert rank([*others, good]) == (good,)
