"""Layers as an engine ran them, mapped back on the network's graph, and where they stand against the machine's roof.

layers = read_layers(read_costs(path, shape), told, "bf16")
gather(layers, Roof({"fp32": 140.0, "bf16": 2000.0}, ((1, 100.0), (1024, 12.0))))
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from costs import HEAVY, Graph, Node

__all__ = ["OWN", "WIDTHS", "Layer", "Roof", "assign", "gather", "read_layers", "stand"]

WIDTHS: Final = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
"""Precision -> bytes of a number."""
SPELLINGS: Final = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}
"""OpenVINO's ending of a kernel's name -> precision."""
OWN: Final = "(engine's own)"
"""Group of layers that the graph does not have: changes of layout and of precision."""


@dataclass(frozen=True, slots=True)
class Roof:
    """What the machine can do at most."""

    peaks_gflops: dict[str, float]
    """Precision -> operations, 10^9 a second."""
    bandwidths: tuple[tuple[float, float], ...]
    """(MiB of the arrays together, GB/s), rising in MiB."""

    def bandwidth(self, size: int) -> float:
        """GB/s of the smallest arrays measured that are as large as ``size`` bytes; else of the largest."""
        for mib, speed in self.bandwidths:
            if size <= mib * 2**20:
                return speed
        return self.bandwidths[-1][1]

    def times_ms(self, layer: Layer) -> tuple[float, float]:
        """Least times that a layer's operations, and its bytes, can take."""
        peak = self.peaks_gflops.get(layer.precision, self.peaks_gflops["fp32"])
        size = layer.weight_bytes + layer.activation_bytes
        return layer.operations / peak / 1e6, size / self.bandwidth(size) / 1e6


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as an engine ran it."""

    name: str
    """The engine's."""
    group: str
    """Part of the network, or `OWN`."""
    kind: str
    """Of its heaviest node, see `costs.Node.kind`; empty if it has none."""
    precision: str
    """One of `WIDTHS`."""
    runs_by: str
    """The engine's name of the kernel."""
    nodes: tuple[str, ...]
    """Of the graph, that are in it."""
    operations: int
    weight_bytes: int
    activation_bytes: int
    ms: float
    """Median of its runs."""


def assign(graph: Graph, told: list[dict[str, Any]]) -> list[set[str]]:
    """The nodes of the graph that each layer of a profile runs.

    A layer names nodes, or values that they give. A node that no layer names was fused or folded: a heavy one belongs
    to the layer that uses it, a light one to the layer that it takes its value from.
    """
    home = _find_named(graph, told)
    makers = {value: node.name for node in graph.nodes for value in node.outputs}
    users: dict[str, list[str]] = {}
    for node in graph.nodes:
        for value in node.inputs:
            users.setdefault(value, []).append(node.name)
    for node in reversed(graph.nodes):
        if node.kind in HEAVY:
            _adopt(home, node, (user for value in node.outputs for user in users.get(value, [])))
    for node in graph.nodes:
        if node.kind != "free":
            _adopt(home, node, (makers[value] for value in node.inputs if value in makers))
    sets: list[set[str]] = [set() for _ in told]
    for name, index in home.items():
        sets[index].add(name)
    return sets


def _find_named(graph: Graph, told: list[dict[str, Any]]) -> dict[str, int]:
    by_spelling = {value: node.name for node in graph.nodes for value in node.outputs}
    by_spelling |= {node.name: node.name for node in graph.nodes}
    home: dict[str, int] = {}
    for index, layer in enumerate(told):
        for spelling in layer["nodes"]:
            plain = spelling.partition("/")[0]  # OpenVINO splits node_conv2d into parts behind a slash
            if plain in by_spelling:
                home.setdefault(by_spelling[plain], index)
    return home


def _adopt(home: dict[str, int], node: Node, neighbours: Iterable[str]) -> None:
    found = next((home[name] for name in neighbours if name in home), None)
    if found is not None:
        home.setdefault(node.name, found)


def read_layers(graph: Graph, told: list[dict[str, Any]], precision: str) -> list[Layer]:
    """A profile's layers with what the graph says of them.

    Args:
        graph: Of the fp32 file; names in the others are the same.
        told: By `sides/profile_side.py`.
        precision: That was asked for, where the profile tells none of a layer.
    """
    nodes = {node.name: node for node in graph.nodes}
    layers = []
    for layer, names in zip(told, assign(graph, told), strict=True):
        inside = [nodes[name] for name in sorted(names)]
        heaviest = max(inside, key=lambda node: node.operations, default=None)
        ending = layer["runs_by"].rpartition("_")[2].lower()
        kind = SPELLINGS.get(ending) or SPELLINGS.get(layer["precision"]) or precision.partition("-")[0]
        weights, activations = graph.bytes_of(names, WIDTHS[kind])
        layers.append(
            Layer(
                name=layer["name"],
                group=OWN if heaviest is None else heaviest.group,
                kind="" if heaviest is None else heaviest.kind,
                precision=kind,
                runs_by=layer["runs_by"],
                nodes=tuple(node.name for node in inside),
                operations=sum(node.operations for node in inside),
                weight_bytes=weights,
                activation_bytes=activations,
                ms=layer["ms"],
            )
        )
    return layers


def gather(layers: Iterable[Layer], roof: Roof) -> list[dict[str, Any]]:
    """Where each group stands, that with most to gain first."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.group, []).append(layer)
    return sorted((stand(name, inside, roof) for name, inside in groups.items()), key=lambda g: -g["lost_ms"])


def stand(name: str, layers: list[Layer], roof: Roof) -> dict[str, Any]:
    """Where some layers stand together."""
    ms = sum(layer.ms for layer in layers)
    operations = sum(layer.operations for layer in layers)
    size = sum(layer.weight_bytes + layer.activation_bytes for layer in layers)
    times = [roof.times_ms(layer) for layer in layers]
    least = sum(max(pair) for pair in times)
    arithmetic, memory = (sum(pair[which] for pair in times) for which in (0, 1))
    return {
        "group": name,
        "layers": len(layers),
        "precisions": sorted({layer.precision for layer in layers}),
        "kinds": sorted({layer.kind for layer in layers} - {""}),
        "gflop": operations / 1e9,
        "mbytes": size / 1e6,
        "flop_per_byte": operations / size if size else None,
        "ms": ms,
        "gflop_per_s": operations / ms / 1e6 if ms else None,
        "gbytes_per_s": size / ms / 1e6 if ms else None,
        "roof_ms": least,
        "roof_gflop_per_s": operations / least / 1e6 if least else None,
        "share_of_roof": least / ms if ms else None,
        "bound_by": "" if not least else "arithmetic" if arithmetic >= memory else "memory",
        "lost_ms": ms - least,
    }
