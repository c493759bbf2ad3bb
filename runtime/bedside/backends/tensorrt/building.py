"""From a bundle's ONNX file to a plan."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bedside.backends.base import Progress
from bedside.backends.tensorrt.inspection import Binding, Inspection, Layer, name_type, read_listing, read_log
from bedside.backends.tensorrt.library import Library, line_of
from bedside.backends.tensorrt.messages import Journal, Steps, make_log, make_monitor, off_stdout
from bedside.backends.tensorrt.recipe import TURING, Recipe
from bedside.backends.tensorrt.turing import replace_products
from bedside.bundle import Bundle
from bedside.errors import BackendError

__all__ = ["Built", "build_plan", "inspect_engine"]

_LOOK_S: Final = 0.05
"""How often Ctrl-C is looked for while TensorRT builds."""


@dataclass(frozen=True, slots=True)
class Built:
    """What came of a build."""

    plan: bytes
    """The serialised engine."""
    inspection: Inspection
    """Its layers and bindings."""
    timing: bytes
    """What was measured, for later builds; empty where the package measures nothing."""


def build_plan(
    library: Library,
    bundle: Bundle,
    recipe: Recipe,
    *,
    progress: Progress | None = None,
    timing: bytes = b"",
) -> Built:
    """Build the engine of one precision of a bundle.

    Args:
        library: The package that builds it.
        bundle: The bundle.
        recipe: What is to be built.
        progress: Told of the steps, in the caller's thread; what it raises, as Ctrl-C does, stops the build.
        timing: `Built.timing` of an earlier build on this device; what does not fit it is ignored.

    Returns:
        The plan, and what is in it.

    Raises:
        BackendError: ``engine-unsupported`` if the package does not have what is asked for, or has no operator of the
            model's; ``engine-failed`` if it fails otherwise.
        BundleError: ``bundle-precision`` if the bundle has no such file.
    """
    library.check()
    recipe.check(library)
    data = bundle.read(bundle.model(recipe.precision))
    with off_stdout():
        return _Build(library, recipe, bundle.manifest.input.name).run(data, progress, timing)


class _Build:
    """One build. TensorRT's objects are kept as long as it lasts: they refer to each other."""

    def __init__(self, library: Library, recipe: Recipe, input_name: str) -> None:
        self._library = library
        self._api = library.api
        self._recipe = recipe
        self._input = input_name
        self._journal = Journal()
        self._log = make_log(library.api, self._journal.note)
        self._steps = Steps()
        self._monitor = make_monitor(library.api, self._steps)

    def run(self, data: bytes, progress: Progress | None, timing: bytes) -> Built:
        try:
            builder = self._api.Builder(self._log)
        except (RuntimeError, TypeError) as error:  # TypeError: pybind11's way to say that it got no object
            raise BackendError(
                "engine-unsupported",
                f"{self._library.backend} can't build here ({self._journal.complaint()}); it needs an NVIDIA GPU with "
                "its driver",
            ) from error
        network, parser = self._parse(builder, data)
        config = self._configure(builder, timing)
        arrays: tuple[Any, ...] = ()
        if self._library.rtx and TURING in self._recipe.capabilities:
            arrays = replace_products(self._api, network)
        bindings = tuple(_bindings(network))
        plan = bytes(self._build(builder, network, config, progress))
        del parser, arrays  # which hold the weights
        cache = None if self._library.rtx else config.get_timing_cache()
        measured = b"" if cache is None else bytes(cache.serialize())
        layers = read_log(self._journal.layers)
        source = "build"
        if not layers and not self._library.rtx:
            layers, source = self._inspect(plan), "inspector"
        return Built(plan, Inspection(layers, bindings, source), measured)

    def _parse(self, builder: Any, data: bytes) -> tuple[Any, Any]:
        flag = getattr(self._api.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = self._api.OnnxParser(network, self._log)
        if self._recipe.dla is not None and hasattr(self._api.OnnxParserFlag, "ADJUST_FOR_DLA"):
            parser.set_flag(self._api.OnnxParserFlag.ADJUST_FOR_DLA)
        if not parser.parse(data):
            raise self._misread(parser)
        return network, parser

    def _misread(self, parser: Any) -> BackendError:
        """What the parser did not take, named with its operator and node."""
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        for error in errors:
            operator = str(error.node_operator())
            if operator:
                name = str(error.node_name())
                node = f"node {name[:100]!r}" if name else f"node number {int(error.node())}"
                return BackendError(
                    "engine-unsupported",
                    f"{self._library.backend} has no operator {operator[:50]!r} as {node} uses it "
                    f"({line_of(error.desc())[:120]}); use another engine",
                )
        reason = line_of(errors[0].desc()) if errors else self._journal.complaint()
        return BackendError(
            "engine-failed", f"{self._library.backend} can't read the model ({reason}); export it again"
        )

    def _configure(self, builder: Any, timing: bytes) -> Any:
        api, recipe, config = self._api, self._recipe, builder.create_builder_config()
        flags = api.BuilderFlag
        config.clear_flag(flags.TF32)  # on by default: products of 10 bits, where float32 was asked for
        config.profiling_verbosity = api.ProfilingVerbosity.DETAILED
        config.progress_monitor = self._monitor
        if recipe.workspace_bytes is not None:
            config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, recipe.workspace_bytes)
        if recipe.version_compatible:
            config.set_flag(flags.VERSION_COMPATIBLE)
        if hasattr(
            flags, "REQUIRE_USER_ALLOCATION"
        ):  # else TensorRT for RTX may run what no CUDA graph can hold
            config.set_flag(flags.REQUIRE_USER_ALLOCATION)
        for shapes in recipe.profiles:
            profile = builder.create_optimization_profile()
            profile.set_shape(self._input, shapes.smallest, shapes.usual, shapes.largest)
            config.add_optimization_profile(profile)
        if recipe.dla is not None:
            self._place(builder, config, recipe.dla)
        known = self._library.capabilities()
        if recipe.capabilities:
            config.num_compute_capabilities = len(recipe.capabilities)
            for index, capability in enumerate(recipe.capabilities):
                config.set_compute_capability(known[capability], index)
        if not self._library.rtx:
            config.set_timing_cache(config.create_timing_cache(timing), ignore_mismatch=False)
        return config

    def _place(self, builder: Any, config: Any, core: int) -> None:
        """Have the DLA run what it can, and the GPU the rest."""
        cores = int(builder.num_DLA_cores)
        if not 0 <= core < cores:
            raise BackendError(
                "engine-unsupported",
                f"no DLA core {core}: TensorRT {self._library.version} finds {cores} here (DLA is on Jetson Orin and "
                "Xavier, and not in every version); leave the DLA out",
            )
        config.default_device_type = self._api.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(self._api.BuilderFlag.GPU_FALLBACK)

    def _build(self, builder: Any, network: Any, config: Any, progress: Progress | None) -> Any:
        """Build in a thread of its own, so that this one can be interrupted."""
        answers: list[Any] = []
        problems: list[Exception] = []

        def build() -> None:
            try:
                answers.append(builder.build_serialized_network(network, config))
            except (RuntimeError, TypeError, ValueError) as error:
                problems.append(error)

        thread = threading.Thread(target=build, name="bedside-tensorrt")
        thread.start()
        try:
            while thread.is_alive():
                self._steps.tell(progress, _LOOK_S)
            self._steps.tell(progress, 0)
        finally:
            self._steps.stopped = True
            thread.join()
        memory = answers[0] if answers else None
        if memory is None:
            raise self._failed(problems)
        return memory

    def _failed(self, problems: list[Exception]) -> BackendError:
        reason = line_of(problems[0]) if problems and not self._journal.errors else self._journal.complaint()
        hint = ""
        if self._recipe.workspace_bytes is not None and "workspace" in reason.lower():
            hint = "; allow more workspace"
        return BackendError(
            "engine-failed", f"{self._library.backend} can't build the model ({reason}){hint}"
        )

    def _inspect(self, plan: bytes) -> tuple[Layer, ...]:
        runtime = self._api.Runtime(self._log)
        engine = runtime.deserialize_cuda_engine(plan)
        return () if engine is None else inspect_engine(self._api, engine)


def inspect_engine(api: Any, engine: Any) -> tuple[Layer, ...]:
    """Layers of an engine that is on its GPU; empty if the inspector's answer is in no known form."""
    text = engine.create_engine_inspector().get_engine_information(api.LayerInformationFormat.JSON)
    try:
        return read_listing(text)
    except ValueError:
        return ()


def _bindings(network: Any) -> Iterator[Binding]:
    for index in range(network.num_inputs):
        yield _binding(network.get_input(index), "input")
    for index in range(network.num_outputs):
        yield _binding(network.get_output(index), "output")


def _binding(tensor: Any, mode: str) -> Binding:
    dtype = name_type(getattr(tensor.dtype, "name", str(tensor.dtype)))
    return Binding(str(tensor.name), mode, dtype, tuple(int(side) for side in tensor.shape))
