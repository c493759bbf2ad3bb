from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bedside_export.errors import ExportError
from bedside_export.heads import LUNG_OPACITY, published_head
from bedside_export.models import ALL, Classifier, SeverityDenseNet, load_classifier

# Cohen et al. 2020, mlmed/covid-severity: slope and intercept on the raw Lung Opacity logit
EXTENT = 0.8705248236656189, 3.4137437
OPACITY = 0.5484423041343689, 2.5535977

Classify = Callable[..., Classifier]
Pictures = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory, xrv: ModuleType) -> Path:
    """A whole pickled DenseNet-121, under the name that torchxrayvision gives its file."""
    torch.manual_seed(5)
    name = str(xrv.models.model_urls[ALL]["weights_url"]).rpartition("/")[2]
    path = tmp_path_factory.mktemp("weights") / name
    torch.save(xrv.models.DenseNet(num_classes=18), path, _use_new_zipfile_serialization=False)
    return path


def _answers(network: torch.nn.Module, pictures: Pictures) -> list[npt.NDArray[np.float32]]:
    with torch.inference_mode():
        return [output.numpy() for output in network(torch.from_numpy(pictures))]


def test_severity_is_the_published_line_on_torchxrayvisions_own_logit(
    classify: Classify, small_densenet: torch.nn.Module, pictures: Pictures
) -> None:
    with torch.inference_mode():
        logits = small_densenet(torch.from_numpy(pictures)).double().numpy()
    lung_opacity = logits[:, classify().labels.index(LUNG_OPACITY)]
    severity, _, _ = _answers(SeverityDenseNet(classify(), published_head()), pictures)
    assert np.ptp(lung_opacity) > 0.01
    np.testing.assert_allclose(severity[:, 0], EXTENT[0] * lung_opacity + EXTENT[1], atol=1e-4)
    np.testing.assert_allclose(severity[:, 1], OPACITY[0] * lung_opacity + OPACITY[1], atol=1e-4)


def test_the_mean_of_the_activation_map_and_a_constant_are_the_severity(
    classify: Classify, pictures: Pictures
) -> None:
    network = SeverityDenseNet(classify(), published_head())
    severity, cam, _ = _answers(network, pictures)
    assert cam.shape == (len(pictures), 2, 2, 2)
    assert np.abs(cam - cam.mean((2, 3), keepdims=True)).max() > 0.01
    np.testing.assert_allclose(cam.mean((2, 3)) + network.severity.bias.numpy(), severity, atol=1e-5)


@pytest.mark.parametrize("kind", [ALL, "densenet121-res224-nih", "densenet121-res224-rsna"])
def test_pathologies_are_those_that_torchxrayvision_reports(
    kind: str, classify: Classify, small_densenet: torch.nn.Module, pictures: Pictures, xrv: ModuleType
) -> None:
    classifier = classify(kind)
    with torch.inference_mode():
        raw = torch.sigmoid(small_densenet(torch.from_numpy(pictures)))
        wanted = xrv.models.op_norm(raw, torch.tensor(xrv.models.model_urls[kind]["op_threshs"])).numpy()
    head = published_head()
    _, _, pathologies = _answers(SeverityDenseNet(classifier, head), pictures)
    np.testing.assert_allclose(pathologies, wanted, atol=1e-6)
    assert np.all(pathologies[:, ~np.array(classifier.trained)] == 0.5)


def test_the_trained_mask_is_where_torchxrayvision_has_a_label(classify: Classify, xrv: ModuleType) -> None:
    for kind in (name for name in xrv.models.model_urls if name.startswith("densenet121-")):
        labels = xrv.models.model_urls[kind]["labels"]
        assert classify(kind).trained == tuple(bool(label) for label in labels)
        assert [label for label in labels if label] == [
            label for label, known in zip(classify().labels, classify(kind).trained, strict=True) if known
        ]


def test_a_seed_decides_random_weights() -> None:
    one, same, other = (load_classifier(f"random:{seed}") for seed in (1, 1, 2))
    for mine, yours in zip(
        one.features.state_dict().values(), same.features.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, yours)
    assert torch.equal(one.logits.weight, same.logits.weight)
    assert not torch.equal(one.logits.weight, other.logits.weight)


def test_a_file_with_torchxrayvisions_own_name_tells_its_labels(weights_file: Path, xrv: ModuleType) -> None:
    classifier = load_classifier(str(weights_file))
    torch.manual_seed(5)
    wanted = xrv.models.DenseNet(num_classes=18)
    assert classifier.kind == ALL
    assert torch.equal(classifier.logits.weight, wanted.classifier.weight)
    assert torch.equal(classifier.features.state_dict()["conv0.weight"], wanted.features.conv0.weight)
    assert not classifier.features.training


def test_pooling_before_a_transitions_convolution_leaves_the_features_as_they_are(
    weights_file: Path, xrv: ModuleType
) -> None:
    classifier = load_classifier(str(weights_file))
    torch.manual_seed(5)
    own = xrv.models.DenseNet(num_classes=18).eval()
    noise = torch.rand(2, 1, 96, 96) * 2048 - 1024
    with torch.no_grad():
        wanted, found = own.features(noise), classifier.features(noise)
    assert list(classifier.features.state_dict()) == list(own.features.state_dict())
    parts = [name for name, _ in classifier.features.transition1.named_children()]  # type: ignore[union-attr]
    assert parts.index("pool") < parts.index("conv")
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_weights_by_name_come_from_torchxrayvisions_cache(weights_file: Path) -> None:
    named = load_classifier(ALL, cache=weights_file.parent)
    assert torch.equal(named.logits.weight, load_classifier(str(weights_file)).logits.weight)
    assert named.weights == ALL


def test_no_network_is_told_with_the_way_around(
    tmp_path: Path, xrv: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    def refuse(*_: object) -> None:
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(xrv.models.utils, "download", refuse)
    with pytest.raises(ExportError, match=r"can't be downloaded.*https://.*--weights"):
        load_classifier(ALL, cache=tmp_path)


def test_a_file_under_another_name_needs_its_kind(weights_file: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "mine.pt"
    renamed.write_bytes(weights_file.read_bytes())
    with pytest.raises(ExportError, match="--weights-kind"):
        load_classifier(str(renamed))
    assert load_classifier(str(renamed), kind="densenet121-res224-nih").trained.count(False) == 4


def test_what_torchxrayvision_does_not_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="densenet121-res224-all"):
        load_classifier("densenet121-res224-none")
    with pytest.raises(ExportError, match="it has: densenet121-res224-all"):
        load_classifier("random:0", kind="none")
    with pytest.raises(ExportError, match="can't pose"):
        load_classifier(ALL, kind="densenet121-res224-nih", cache=tmp_path)


def test_another_networks_weights_are_refused(tmp_path: Path, small_densenet: torch.nn.Module) -> None:
    path = tmp_path / "mine.pt"
    torch.save(small_densenet.state_dict(), path)
    with pytest.raises(ExportError, match="not those of torchxrayvision's DenseNet-121"):
        load_classifier(str(path), kind=ALL)


def test_weights_with_nan_are_refused(weights_file: Path, tmp_path: Path, xrv: ModuleType) -> None:
    state = xrv.models.DenseNet(num_classes=18).state_dict()
    state["features.norm5.weight"][7] = float("nan")
    torch.save(state, tmp_path / "mine.pt")
    with pytest.raises(ExportError, match="NaN"):
        load_classifier(str(tmp_path / "mine.pt"), kind=ALL)


def test_loading_leaves_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    load_classifier("random:1")
    assert list(warnings.filters) == before
