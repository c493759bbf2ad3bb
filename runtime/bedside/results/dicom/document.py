"""The report as a DICOM object: Comprehensive 3D SR (PS3.3, A.35.13), as IHE RAD AIR 6.5.3 asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items

from bedside.dicom.references import Instance
from bedside.results.dicom.header import begin, series_references
from bedside.results.dicom.identity import Identity

__all__ = ["make_document"]


def make_document(
    identity: Identity, root: Dataset, made: Sequence[FileDataset] = (), *, complete: bool
) -> FileDataset:
    """A report with its evidence: every instance that it rests on or refers to, of the one study.

    It is preliminary and unverified: nobody has looked at it.

    Args:
        identity: Whose result it is.
        root: The tree, as `bedside.results.dicom.trees.make_report` gives it.
        made: Other results of the same run; those that the tree names, and those that stand beside it.
        complete: Whether the analysis came to an end.
    """
    report = begin(identity, "report")
    report.ReferencedPerformedProcedureStepSequence = Items()
    report.PerformedProcedureCodeSequence = Items()
    report.CompletionFlag = "COMPLETE" if complete else "PARTIAL"
    if not complete:
        report.CompletionFlagDescription = "No result: the analysis was refused or failed"
    report.VerificationFlag = "UNVERIFIED"
    report.PreliminaryFlag = "PRELIMINARY"
    named = {
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in _walk(root)
        if "ReferencedSOPSequence" in item
    }
    source = (identity.study.series_uid, identity.study.instances)
    evidence = [source, *(_own(each) for each in made if str(each.SOPInstanceUID) in named)]
    beside = [_own(each) for each in made if str(each.SOPInstanceUID) not in named]
    report.CurrentRequestedProcedureEvidenceSequence = _of_study(identity, evidence)
    if beside:
        report.PertinentOtherEvidenceSequence = _of_study(identity, beside)
    for element in root:
        if element.keyword != "RelationshipType":
            report.add(element)
    return report


def _own(made: FileDataset) -> tuple[str, tuple[Instance, ...]]:
    return str(made.SeriesInstanceUID), (Instance(str(made.SOPClassUID), str(made.SOPInstanceUID), None),)


def _of_study(identity: Identity, groups: Iterable[tuple[str, Iterable[Instance]]]) -> Items:
    item = Dataset()
    item.StudyInstanceUID = identity.study.study_uid
    item.ReferencedSeriesSequence = series_references(groups, keyword="ReferencedSOPSequence")
    return Items([item])


def _walk(item: Dataset) -> Iterable[Dataset]:
    yield item
    for child in item.get("ContentSequence", ()):
        yield from _walk(child)
