"""What ``Dockerfile.jetson`` promises; no Docker is needed. `scripts/check` lints it and resolves its wheels."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest

from bedside.backends.tensorrt.library import OLDEST
from bedside.cli import main

ROOT = Path(__file__).parents[2]
JETPACKS = ["6", "7"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One ``FROM`` and what follows it."""

    base: str
    name: str
    instructions: list[tuple[str, str]]

    def all(self, word: str) -> list[str]:
        """The arguments of each instruction of that name."""
        return [arguments for instruction, arguments in self.instructions if instruction == word]

    def environment(self) -> dict[str, str]:
        """The variables that it sets."""
        return dict(pair.split("=", 1) for line in self.all("ENV") for pair in shlex.split(line))


def read_instructions() -> Iterator[tuple[str, str]]:
    text = (ROOT / "Dockerfile.jetson").read_text("utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            word, arguments = line.split(maxsplit=1)
            yield word, arguments


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    current: Stage | None = None
    for word, arguments in read_instructions():
        if word == "FROM":
            base, _, name = arguments.split()
            current = found[name] = Stage(base, name, [])
        elif current is not None:
            current.instructions.append((word, arguments))
    return found


@pytest.fixture(scope="module")
def image(stages: dict[str, Stage]) -> Stage:
    """The last stage: what is run."""
    return list(stages.values())[-1]


def parse(arguments: list[str]) -> None:
    """Raise `click.UsageError` unless bedside has that command with those options."""
    command = main.commands[arguments[0]]
    command.make_context(arguments[0], list(arguments[1:]), resilient_parsing=False)


def test_build_argument_chooses_the_jetpack(stages: dict[str, Stage], image: Stage) -> None:
    assert next(read_instructions()) == ("ARG", "JETPACK=6")
    assert {name for name in stages if name.startswith("jetpack")} == {f"jetpack{it}" for it in JETPACKS}
    assert image.base == stages["environment"].base == "jetpack${JETPACK}"


def test_images_are_pinned(stages: dict[str, Stage]) -> None:
    outer = [stage.base for stage in stages.values() if not stage.base.startswith("jetpack")]
    assert len(outer) == 3
    for base in outer:
        assert re.fullmatch(r"(docker\.io/library/python|nvcr\.io/nvidia/[\w-]+):[\w.-]*\d\.\d[\w.-]*", base)


@pytest.mark.parametrize("jetpack", JETPACKS)
def test_tensorrt_is_one_that_bedside_takes(stages: dict[str, Stage], jetpack: str) -> None:
    stage = stages[f"jetpack{jetpack}"]
    version = re.search(
        r"(?:l4t-tensorrt:r|libnvinfer=)(\d+)\.(\d+)", " ".join([stage.base, *stage.all("RUN")])
    )
    assert version
    assert (int(version[1]), int(version[2])) >= OLDEST


def test_only_nvidias_key_is_fetched_and_its_hash_is_checked(stages: dict[str, Stage]) -> None:
    added = [line for stage in stages.values() for line in stage.all("ADD")]
    assert len(added) == 1
    assert re.match(r"--checksum=sha256:[0-9a-f]{64} ", added[0])
    key = added[0].split()[-1]
    assert f"signed-by={key}" in " ".join(stages["jetpack7"].all("RUN"))


def test_runs_as_a_user_of_its_own_that_may_use_the_gpu(image: Stage) -> None:
    assert [word for word, _ in image.instructions].count("USER") == 1
    (user,) = image.all("USER")
    assert int(user) >= 1000  # without a group, which would take the others away
    (made,) = image.all("RUN")
    assert re.search(rf"useradd --uid {user} .*--groups video ", made)
    after = [word for word, _ in image.instructions[image.instructions.index(("USER", user)) + 1 :]]
    assert set(after) <= {"WORKDIR", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def test_needs_no_writable_root(image: Stage) -> None:
    environment = image.environment()
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    (made,) = image.all("RUN")
    assert re.search(rf"install --directory --owner=bedside .*{environment['XDG_CACHE_HOME']}\b", made)
    assert image.all("VOLUME") == []  # one that nobody named would be writable, and lost


def test_holds_no_compiler_and_no_cache(stages: dict[str, Stage], image: Stage) -> None:
    commands = [line for stage in stages.values() for line in stage.all("RUN")]
    for line in commands:
        assert ("apt-get install" in line) == ("rm -rf /var/lib/apt/lists/*" in line)
        assert not re.search(r"build-essential|\bg(cc|\+\+)\b|-dev\b|cmake", line)
        for call in re.findall(r"(?:uv|pip) (?:venv|build|(?:pip )?install)[^&]*", line):
            assert "--no-cache" in call
    assert not re.search(r"apt-get|pip|uv ", " ".join(image.all("RUN")))
    assert image.all("COPY") == ["--from=environment /opt/bedside /opt/bedside"]


def test_installs_from_wheels_alone_what_pyproject_names(stages: dict[str, Stage]) -> None:
    (install,) = stages["environment"].all("RUN")
    assert "--only-binary :all:" in install
    assert "--system-site-packages" in install  # TensorRT's own package is the system's
    extras = re.search(r"\[([\w,]+)\]", install)
    assert extras
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert {"cpu", "codecs", "dicom", "node", "tensorrt"} == set(extras[1].split(","))
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", project, flags=re.MULTILINE)


def test_what_is_copied_is_there_and_is_all_that_docker_is_sent(stages: dict[str, Stage]) -> None:
    copied = [
        Path(source).name
        for stage in stages.values()
        for line in stage.all("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    assert kept[0] == "*"
    assert {line[1:] for line in kept if line.startswith("!")} == set(copied)


def test_the_wheel_can_be_built_of_what_is_copied(stages: dict[str, Stage]) -> None:
    copied = " ".join(stages["wheel"].all("COPY"))
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    named = re.findall(r"^(?:readme|license-files|packages|path) = (.+)$", project, flags=re.MULTILINE)
    paths = [path for value in named for path in re.findall(r'"([^"]+)"', value)]
    assert len(paths) >= 5
    for path in paths:
        assert any(fnmatch(path, pattern) for name in copied.split() for pattern in (name, f"{name}/*")), path


def test_health_check_is_a_command_that_bedside_has(image: Stage) -> None:
    (check,) = image.all("HEALTHCHECK")
    command = json.loads(check[check.index("CMD ") + 4 :])
    assert command[0] == "bedside"
    parse(command[1:])
    assert [json.loads(line) for line in image.all("ENTRYPOINT")] == [["bedside"]]
    assert image.environment()["PATH"].startswith("/opt/bedside/bin:")


def test_image_says_what_it_is_not_for(image: Stage) -> None:
    (label,) = image.all("LABEL")
    labels = dict(pair.split("=", 1) for pair in shlex.split(label))
    assert "Not for clinical use" in labels["org.opencontainers.image.description"]


def test_holds_no_secret(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        for line in [*stage.all("ENV"), *stage.all("ARG")]:
            assert not re.search(r"TOKEN|PASSW|SECRET|_KEY|CREDENTIAL", line, flags=re.IGNORECASE)


def commands_of_the_guide() -> list[str]:
    text = (ROOT / "docs/jetson.md").read_text("utf-8")
    return re.findall(r"^bedside (.+?)(?:\s+#.*)?$", text, flags=re.MULTILINE)


def test_guide_has_commands() -> None:
    assert len(commands_of_the_guide()) >= 4
    text = (ROOT / "docs/jetson.md").read_text("utf-8")
    assert re.findall(r"--build-arg JETPACK=(\d)", text) == JETPACKS
    for option in ("--read-only", "--tmpfs /tmp", "--runtime nvidia", "--volume bedside-cache:/cache"):
        assert option in text


@pytest.mark.parametrize("line", commands_of_the_guide())
def test_commands_of_the_guide_are_bedsides(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/sample.dcm").touch()  # what the line before it wrote
    monkeypatch.chdir(tmp_path)
    parse(shlex.split(line))


def test_parsing_refuses_what_bedside_has_not() -> None:
    with pytest.raises(click.UsageError):
        parse(["doctor", "--nonsense"])
