"""What each reader says: label maps, or results of bedside, found under the paths that were given.

A reader is whoever made the labels or scores: a person, a network, the same network on another engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Final

from bedside.comparison.sources import ENDINGS, OPACIFICATION, SEVERITY, Item, find_items, kind_of
from bedside.errors import RefusedError

__all__ = ["LABELS", "OPACIFICATION", "SEVERITY", "LabelMap", "Reader", "Readers", "open_readers"]

LABELS: Final = "labels"
"""Label maps are compared, voxel by voxel. `OPACIFICATION`: the volumes that ``bedside segment`` gave. `SEVERITY`: the
scores that ``bedside score`` gave."""


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A file of labels, and what they mean."""

    path: Path
    """NIfTI."""
    parts: Mapping[str, frozenset[int]] | None
    """What is compared -> its labels: ``opacity``, ``lung``, and each class by its name. None where nothing says which
    labels are opacity: then a map may hold one label only."""


@dataclass(frozen=True, slots=True)
class Reader:
    """One of the paths to compare."""

    name: str
    """Short, and no other reader's."""
    source: str
    """The path, as it was given."""
    maps: Mapping[str, LabelMap]
    """Case -> label map, of all cases that have one to compare."""
    records: Mapping[str, Mapping[str, Any]]
    """Case -> result as JSON, of all that have one with status ``ok``."""
    left_out: Mapping[str, str]
    """Case -> why it can't be compared, as its result says."""


@dataclass(frozen=True, slots=True)
class Readers:
    """All of them, the reference first, and what they have in common."""

    kind: str
    """What is compared: `LABELS`, `OPACIFICATION` or `SEVERITY`."""
    readers: tuple[Reader, ...]
    """Two or more."""
    cases: tuple[str, ...]
    """Cases that every reader has, in the order of the reference."""
    left_out: Mapping[str, str]
    """Case -> why it is not compared: whose it lacks, or what a result says."""


def open_readers(paths: Sequence[Path], opacity_labels: Sequence[frozenset[int]] = ()) -> Readers:
    """Find what is to be compared.

    A path is a NIfTI file, a folder of them, a JSON file of results, or a folder with such. Cases of one name belong
    together (of files the name, of results that of their source, without its ending); single cases do in any event.

    Args:
        paths: Two or more; the first is the reference.
        opacity_labels: Labels that are opacity: none, one set for all, or one for each path. Results with label maps
            say it themselves, and are believed unless this is given.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``empty-file``; ``not-results``, a JSON file that holds no results,
            or a folder that holds nothing to compare.
        RefusedError: ``not-comparable``: results of different kinds, or no case in common.
    """
    if len(paths) < 2 or len(opacity_labels) not in (0, 1, len(paths)):
        raise ValueError(f"{len(paths)} readers with {len(opacity_labels)} sets of labels")
    labels: list[frozenset[int] | None] = [None] * len(paths)
    if opacity_labels:
        labels = [opacity_labels[index % len(opacity_labels)] for index in range(len(paths))]
    names = _name_readers([str(path) for path in paths])
    found = [find_items(path) for path in paths]
    cases = _name_cases([[item.source for item in items] for items in found])
    readers = [
        _read(name, str(path), dict(zip(case, items, strict=True)), of)
        for name, path, case, items, of in zip(names, paths, cases, found, labels, strict=True)
    ]
    if all(len(items) == 1 for items in found):
        readers = [_renamed(reader, cases[0][0]) for reader in readers]
    kind = _kind(readers)
    has = [reader.maps if kind == LABELS else reader.records for reader in readers]
    shared = tuple(case for case in has[0] if all(case in each for each in has))
    known = dict.fromkeys(case for each in readers for case in (*each.records, *each.maps, *each.left_out))
    left_out = {
        case: reader.left_out.get(case, f"{reader.name} does not have it")
        for reader, each in zip(readers, has, strict=True)
        for case in known
        if case not in each
    }
    if not shared:
        raise RefusedError("not-comparable", _say_none_shared(readers))
    return Readers(kind, tuple(readers), shared, left_out)


def _read(name: str, source: str, items: Mapping[str, Item], labels: frozenset[int] | None) -> Reader:
    maps, records, left_out = {}, {}, {}
    for case, item in items.items():
        record = item.record
        if record is not None and record["status"] != "ok":
            code = (record.get("error") or {}).get("code", "unknown")
            left_out[case] = f"{name}: {record['status']} [{code}]"
            continue
        if record is not None:
            records[case] = record
        if item.labels is None:
            left_out[case] = f"{name}: its result names no label map that is there"
        elif record is not None and record.get("read_share", 1) < 1:
            left_out[case] = f"{name}: not all slices were read (--deadline), so its labels are not whole"
        else:
            maps[case] = LabelMap(item.labels, _parts(record, labels))
    return Reader(name, source, maps, records, left_out)


def _parts(
    record: Mapping[str, Any] | None, labels: frozenset[int] | None
) -> Mapping[str, frozenset[int]] | None:
    """What the labels mean: by the option, else by the result that the map came with."""
    if labels is not None:
        return {"opacity": labels}
    if record is None:
        return None
    classes = {
        str(each["name"]): each for each in record.get("classes", ()) if each["opacity"] or each["lung"]
    }
    parts = {
        "opacity": frozenset(each["label"] for each in classes.values() if each["opacity"]),
        "lung": frozenset(each["label"] for each in classes.values()),  # an opacity counts to the lung
    }
    parts |= {name: frozenset({each["label"]}) for name, each in classes.items() if name not in parts}
    return parts


def _kind(readers: Sequence[Reader]) -> str:
    if all(reader.maps for reader in readers):
        return LABELS
    kinds = {kind_of(record) for reader in readers for record in reader.records.values()}
    if len(kinds) == 1 and all(reader.records for reader in readers):
        return kinds.pop()
    said = [why for reader in readers for why in reader.left_out.values()]
    raise RefusedError(
        "not-comparable",
        "give label maps, or results of one kind, for every reader"
        + (f" ({said[0]})" if said else "")
        + "; results of bedside segment count as label maps where those lie beside them",
    )


def _say_none_shared(readers: Sequence[Reader]) -> str:
    said = [why for reader in readers for why in reader.left_out.values()]
    return "no case is there for every reader: cases are matched by the names of their files or sources" + (
        f" ({said[0]})" if said else ""
    )


def _renamed(reader: Reader, case: str) -> Reader:
    """The reader of a single case, under another name for it."""
    return replace(
        reader,
        maps=dict.fromkeys([case] * len(reader.maps), *reader.maps.values()),
        records=dict.fromkeys([case] * len(reader.records), *reader.records.values()),
        left_out=dict.fromkeys([case] * len(reader.left_out), *reader.left_out.values()),
    )


def _name_cases(sources: Sequence[Sequence[str]]) -> list[list[str]]:
    """Name of each source of each reader: as few parts of its path as tell all the cases of a reader apart."""
    most = max(len(PurePath(source).parts) for of in sources for source in of)
    for count in range(1, most + 1):
        names = [[_tail(source, count) for source in of] for of in sources]
        if all(len(set(of)) == len(of) for of in names):
            return names
    return [list(of) for of in sources]


def _name_readers(sources: Sequence[str]) -> list[str]:
    different = list(dict.fromkeys(sources))
    short = dict(zip(different, _name_cases([different])[0], strict=True))
    names = [short[source] or source for source in sources]
    seen = Counter(names)
    return [f"{name} ({index})" if seen[name] > 1 else name for index, name in enumerate(names, 1)]


def _tail(source: str, count: int) -> str:
    path = PurePath(source)
    ending = next((e for e in ENDINGS if path.name.lower().endswith(e) and len(path.name) > len(e)), "")
    return str(
        PurePath(*path.parts[-count:-1], path.name.removesuffix(path.name[len(path.name) - len(ending) :]))
    )
