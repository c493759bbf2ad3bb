"""The bundle's own word on what a picture looks like: what is refused for it, what is doubted, what force does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bedside import Bundle, BundleError, CxrScorer, RefusedError
from bedside.backends import FakeBackend
from bedside.batch import Batch, Output
from bedside.bundle import Manifest
from bedside.contract import APPEARANCES
from bedside.errors import CODES
from bedside.inputs import Inputs
from bedside.quality import APPEARS, check_appearance
from command_line import invoke
from schemas import make_validator
from tiny_bundle import Network, make_bundle

NETWORK = Network(appearance=True)
VALIDATOR = make_validator("severity-1")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "b", network=NETWORK))


@pytest.fixture
def scorer(bundle: Bundle) -> CxrScorer:
    return CxrScorer(bundle, FakeBackend(lambda inputs: dict(NETWORK.run(inputs["image"]))))


def picture(path: Path, grey: int) -> Path:
    """A picture of about one grey: to the tiny network a bright one is frontal, a dark one inverted."""
    noise = np.random.default_rng(0).integers(-20, 20, (100, 120))
    Image.fromarray(np.clip(grey + noise, 1, 254).astype(np.uint8)).save(path)
    return path


def looks(frontal: float, **others: float) -> dict[str, float]:
    rest = {name.replace("_", "-"): value for name, value in others.items()}
    return {"frontal": frontal, **{name: rest.get(name, 0.0) for name in APPEARANCES[1:]}}


@pytest.mark.parametrize("name", APPEARANCES[1:])
def test_every_other_look_is_refused_with_what_to_do(name: str, bundle: Bundle) -> None:
    with pytest.raises(RefusedError) as caught:
        check_appearance(looks(0.1, **{name: 0.9}), bundle.manifest)
    code, text = APPEARS[name]
    assert caught.value.code == code
    assert text in caught.value.message
    assert "--force" in caught.value.message
    assert code in CODES


@pytest.mark.parametrize(
    ("frontal", "codes"),
    [(0.99, []), (0.8, []), (0.79, ["frontal-doubtful"]), (0.4, ["frontal-doubtful"])],
)
def test_limits_are_the_bundles(frontal: float, codes: list[str], bundle: Bundle) -> None:
    findings = check_appearance(looks(frontal, partial=1 - frontal), bundle.manifest)
    assert [finding.code for finding in findings] == codes


def test_force_turns_a_refusal_into_a_note_that_says_why(bundle: Bundle) -> None:
    (finding,) = check_appearance(looks(0.02, inverted=0.95), bundle.manifest, force=True)
    assert finding.code == "forced"
    assert "inverted-picture" in finding.text
    assert "95%" in finding.text


def test_bundle_that_does_not_tell_refuses_nothing(tmp_path: Path) -> None:
    manifest = Bundle.open(make_bundle(tmp_path / "b")).manifest
    assert check_appearance({}, manifest) == ()
    assert check_appearance(looks(0.0, other=1.0), manifest) == ()


def test_refused_picture_has_no_score_but_says_what_it_looks_like(scorer: CxrScorer, tmp_path: Path) -> None:
    with scorer:
        result = scorer.score(picture(tmp_path / "dark.png", 40))
    assert (result.status, result.error and result.error.code) == ("refused", "inverted-picture")
    assert result.severity is None
    assert result.appearance["inverted"] > result.appearance["frontal"]
    record = json.loads(json.dumps(result.to_json(), allow_nan=False))
    VALIDATOR.validate(record)
    assert record["appearance"].keys() == {"frontal", "inverted", "other"}


def test_forced_picture_is_scored_and_says_so(scorer: CxrScorer, tmp_path: Path) -> None:
    with scorer:
        result = scorer.score(picture(tmp_path / "dark.png", 40), force=True)
    assert result.status == "ok"
    assert result.forced
    assert "forced" in {finding.code for finding in result.quality}


def test_accepted_picture_has_no_note(scorer: CxrScorer, tmp_path: Path) -> None:
    with scorer:
        result = scorer.score(picture(tmp_path / "bright.png", 230))
    assert result.status == "ok"
    assert not {"forced", "frontal-doubtful"} & {finding.code for finding in result.quality}


def test_one_refused_picture_does_not_stop_the_others(scorer: CxrScorer, tmp_path: Path) -> None:
    pictures = tmp_path / "in"
    pictures.mkdir()
    for name, grey in (("a", 230), ("b", 40), ("c", 240)):
        picture(pictures / f"{name}.png", grey)
    with scorer, Batch(scorer, Output(tmp_path / "out")) as batch:
        statuses = [scored.result.status for scored in batch.run(Inputs([pictures]))]
    assert statuses == ["ok", "refused", "ok"]


def test_command_line_refuses_and_goes_on_with_force(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", network=NETWORK)
    path = picture(tmp_path / "dark.png", 40)
    arguments: list[str | Path] = ["score", path, "--bundle", folder, "--json"]
    refused = invoke(*arguments)
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["error"]["code"] == "inverted-picture"
    forced = invoke(*arguments, "--force")
    assert forced.exit_code == 0
    assert json.loads(forced.stdout)["forced"] is True


def altered(manifest: Manifest, **changes: Any) -> Manifest:
    return replace(manifest, **changes)


@pytest.mark.parametrize(
    "thresholds",
    [
        {},
        {"frontal_probability_sure": 0.8},
        {"frontal_probability_min": 0.0},
        {"frontal_probability_min": 0.5, "frontal_probability_sure": 0.4},
        {"frontal_probability_min": 0.5, "frontal_probability_sure": 1.0},
    ],
)
def test_manifest_with_improper_limits_is_refused(thresholds: dict[str, float], bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="frontal_probability"):
        altered(bundle.manifest, thresholds=thresholds)


def test_manifest_with_limits_and_no_appearance_is_refused(bundle: Bundle) -> None:
    outputs = tuple(output for output in bundle.manifest.outputs if output.meaning != "appearance")
    with pytest.raises(BundleError, match="go together"):
        altered(bundle.manifest, outputs=outputs)


@pytest.mark.parametrize("labels", [(), ("other", "frontal"), ("inverted",), ("frontal", "sideways")])
def test_manifest_with_improper_appearances_is_refused(labels: tuple[str, ...], bundle: Bundle) -> None:
    outputs = tuple(
        replace(output, labels=labels) if output.meaning == "appearance" else output
        for output in bundle.manifest.outputs
    )
    with pytest.raises(BundleError, match="labels of an appearance"):
        altered(bundle.manifest, outputs=outputs)
