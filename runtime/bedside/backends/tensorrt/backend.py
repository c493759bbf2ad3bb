"""A bundle on TensorRT: its engine found or built, checked, and run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from bedside.backends.base import Arrays, EngineInfo, Tuning, check_inputs
from bedside.backends.tensorrt.ahead import make_header
from bedside.backends.tensorrt.building import build_plan, inspect_engine
from bedside.backends.tensorrt.cuda import Cuda, load_runtime
from bedside.backends.tensorrt.enginefile import Header, Wanted, pack
from bedside.backends.tensorrt.inspection import Binding, Inspection, name_type
from bedside.backends.tensorrt.library import Library
from bedside.backends.tensorrt.messages import Journal, make_log, off_stdout
from bedside.backends.tensorrt.recipe import Recipe, list_profiles
from bedside.backends.tensorrt.session import Interface, Session
from bedside.backends.tensorrt.site import find_site
from bedside.backends.tensorrt.store import Store, load
from bedside.bundle import Bundle
from bedside.errors import BackendError, OutputError

__all__ = ["EngineBackend"]

_Float32 = npt.NDArray[np.float32]


class EngineBackend:
    """See `bedside.backends.base.Backend`.

    The engine comes from the cache where it holds one for exactly this bundle, package, GPU and driver, or one that
    was built ahead for this GPU's compute capability; else it is built, and kept there. A cache that can't be written
    costs the next start the same time and no more.

    Args:
        library: The package.
        bundle: The bundle.
        precision: One of `bedside.backends.PRECISIONS`.
        threads: Not used: the processor only copies.
        tuning: How it is set up.
    """

    def __init__(
        self, library: Library, bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning
    ) -> None:
        library.check()
        profiles = list_profiles(bundle.manifest, tuning)
        self._recipe = Recipe(precision, profiles, workspace_bytes=tuning.workspace_bytes, dla=tuning.dla)
        self._recipe.check(library)
        bundle.model(precision)
        self._library = library
        self._bundle = bundle
        self._cuda = Cuda(load_runtime(library.extra))
        self._site = find_site(self._cuda)
        self._store = None if tuning.cache is None else Store(tuning.cache)
        self._journal = Journal()
        self._sessions: dict[int, Session] = {}
        self._engine: Any = None
        self._kernels: Any = None
        self._closed = self._warm = False
        self._resources = ExitStack()
        with ExitStack() as undo:
            undo.callback(self.close)
            self._header = self._open(tuning)
            place = f"{self._site.device} ({self._site.capability})"
            if tuning.dla is not None:
                place += f", DLA core {tuning.dla}, what it can't run on the GPU"
            self._info = EngineInfo(library.backend, library.version, precision, place, threads)
            with off_stdout():
                self._answer(np.zeros(profiles[0].usual, np.float32))  # which makes its graph
            undo.pop_all()
        self._warm = True
        self._keep_kernels()

    @property
    def info(self) -> EngineInfo:
        """What runs here."""
        return self._info

    @property
    def header(self) -> Header:
        """What the engine's file says of it, or would."""
        return self._header

    def inspect(self) -> Inspection:
        """The layers and bindings of the engine on its GPU, as TensorRT's engine inspector tells them."""
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        bindings = tuple(
            Binding(
                name,
                "input" if engine.get_tensor_mode(name) == self._library.api.TensorIOMode.INPUT else "output",
                _type_of(engine, name),
                tuple(int(side) for side in engine.get_tensor_shape(name)),
            )
            for name in names
        )
        return Inspection(inspect_engine(self._library.api, engine), bindings, "inspector")

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """Run the network once; see `bedside.backends.base.Backend.run`.

        More pictures than the engine takes at once are run in turns.

        Raises:
            BackendError: ``engine-unsupported`` if the sides are none that the engine was built for.
        """
        if self._closed:
            raise BackendError("engine-failed", "the engine is closed; open it again")
        spec = self._bundle.manifest.input
        check_inputs(inputs, spec)
        return self._answer(inputs[spec.name])

    def close(self) -> None:
        """Free the engine and its memory. Closing twice is harmless."""
        if self._warm and not self._closed:
            self._keep_kernels()  # of the shapes that came since
        self._closed = True
        while self._sessions:
            self._sessions.popitem()[1].close()
        self._engine = self._kernels = None
        self._resources.close()

    def _answer(self, image: _Float32) -> Arrays:
        session = self._session(image.shape[1:])
        most = session.profile.batches[1]
        answers: Arrays = {}
        for start in range(0, len(image), most):
            part = session.run(image[start : start + most])
            for name, values in part.items():
                if name not in answers:
                    answers[name] = np.empty((len(image), *values.shape[1:]), np.float32)
                answers[name][start : start + len(values)] = values
        return answers

    def _session(self, sides: tuple[int, ...]) -> Session:
        for index, profile in enumerate(self._header.recipe.profiles):
            if profile.takes(sides):
                if index not in self._sessions:
                    self._sessions[index] = self._start(index)
                return self._sessions[index]
        asked = " x ".join(map(str, sides[1:]))
        reach = " and ".join(
            f"{' x '.join(map(str, each.smallest[2:]))} to {' x '.join(map(str, each.largest[2:]))}"
            for each in self._header.recipe.profiles
        )
        raise BackendError(
            "engine-unsupported",
            f"the engine is built for sides of {reach}, not {asked}; open it with that tile",
        )

    def _open(self, tuning: Tuning) -> Header:
        """Put an engine on the GPU: one that is kept, else a new one."""
        self._stream = self._cuda.open_stream()
        self._resources.callback(self._cuda.close_stream, self._stream)
        wanted = Wanted(
            self._bundle.digest,
            self._library.backend,
            self._library.version,
            self._site,
            self._recipe.precision,
            self._recipe.profiles[0],
            self._recipe.dla,
            self._recipe.workspace_bytes,
        )
        path = None if self._store is None else self._store.find(wanted)
        if path is not None:
            try:
                header, plan = load(path, wanted)
                self._engine = self._deserialise(header, plan)
            except BackendError as error:
                if error.code != "engine-foreign":
                    raise
            else:
                return header
        header, plan = self._build(tuning)
        try:
            self._engine = self._deserialise(header, plan)
        except BackendError as error:
            raise BackendError(
                "engine-failed", f"the engine was built and does not open: {error.message}"
            ) from error
        return header

    def _build(self, tuning: Tuning) -> tuple[Header, bytes]:
        recipe = self._recipe
        if self._library.rtx:
            recipe = Recipe(
                recipe.precision,
                recipe.profiles,
                (self._site.capability,),
                workspace_bytes=recipe.workspace_bytes,
            )
            recipe.check(self._library)
        name = self._blob("timing")
        timing = b"" if self._store is None else self._store.read_blob(name)
        built = build_plan(self._library, self._bundle, recipe, progress=tuning.progress, timing=timing)
        header = make_header(self._library, self._bundle, recipe, built, self._site)
        if self._store is not None:
            with suppress(OutputError):  # it runs as well without being kept
                self._store.save(header, pack(header, built.plan))
                if built.timing and built.timing != timing:
                    self._store.write_blob(name, built.timing)
        return header, built.plan

    def _deserialise(self, header: Header, plan: bytes) -> Any:
        log = make_log(self._library.api, self._journal.note)
        runtime = self._library.api.Runtime(log)
        self._kept = (log, runtime)  # the engine refers to both
        if header.recipe.dla is not None:
            runtime.DLA_core = header.recipe.dla
        if header.recipe.version_compatible:
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BackendError(
                "engine-foreign",
                f"{self._library.backend} does not take the built engine ({self._journal.complaint()}); build it "
                "again here",
            )
        for name in (self._bundle.manifest.input.name, *self._outputs()):
            if (dtype := _type_of(engine, name)) != "float32":
                raise BackendError(
                    "engine-failed",
                    f"the engine's {name!r} is {dtype} and not float32; export the bundle again",
                )
        return engine

    def _outputs(self) -> tuple[str, ...]:
        return tuple(output.name for output in self._bundle.manifest.outputs)

    def _start(self, index: int) -> Session:
        """Take the memory of one profile."""
        size = int(self._engine.get_device_memory_size_for_profile_v2(index))
        interface = Interface(
            self._bundle.manifest.input.name, self._outputs(), size, lambda: self._make_context(index)
        )
        return Session(self._cuda, self._stream, self._header.recipe.profiles[index], interface)

    def _make_context(self, index: int) -> Any:
        strategy = self._library.api.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._library.rtx:
            context = self._engine.create_execution_context(self._configure(strategy))
        else:
            context = self._engine.create_execution_context(strategy)
        if context is None or not context.set_optimization_profile_async(index, int(self._stream)):
            raise BackendError(
                "engine-failed",
                f"TensorRT can't start the engine ({self._journal.complaint()}); use another engine",
            )
        self._cuda.wait(self._stream)
        return context

    def _configure(self, strategy: Any) -> Any:
        """TensorRT for RTX compiles on the device: before a shape's graph, which would keep what is slow."""
        api, config = self._library.api, self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.dynamic_shapes_kernel_specialization_strategy = (
            api.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        if self._kernels is None:
            self._kernels = config.create_runtime_cache()
            if self._store is not None and (blob := self._store.read_blob(self._blob("kernels"))):
                self._kernels.deserialize(blob)  # which refuses what is not for here
        config.set_runtime_cache(self._kernels)
        return config

    def _keep_kernels(self) -> None:
        """Keep what TensorRT for RTX has compiled on the device so far."""
        if self._kernels is None or self._store is None:
            return
        name, blob = self._blob("kernels"), bytes(self._kernels.serialize())
        if blob != self._store.read_blob(name):
            with suppress(OutputError):  # it runs as well without being kept
                self._store.write_blob(name, blob)

    def _blob(self, kind: str) -> str:
        parts = [self._library.backend, self._library.version, self._site.device, self._site.driver]
        if kind == "kernels":
            parts += [self._bundle.digest, self._recipe.precision]
        return (
            f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.{self._library.backend}.{kind}"
        )


def _type_of(engine: Any, name: str) -> str:
    dtype = engine.get_tensor_dtype(name)
    return name_type(getattr(dtype, "name", str(dtype)))
