from __future__ import annotations

import os
from pathlib import Path

import pytest

from bedside.device import Clock, DeviceState, Machine, StateReader, Watch, read_state
from bedside.device.nvml import Nvml
from made_devices import FakeNvmlModule, make_container, make_jetson, make_laptop, write_files

ALERT = "sys/class/thermal/cooling_device2/cur_state"  # gpu-throttle-alert of make_jetson
OVER_CURRENT = "sys/class/hwmon/hwmon3/oc3_event_cnt"


def test_jetson_tells_its_state(tmp_path: Path) -> None:
    state = read_state(root=make_jetson(tmp_path))
    assert state.power_mode == "MODE_30W"
    assert state.clocks == {"cpu": Clock(1728.0, 2201.6), "17000000.gpu": Clock(306.0, 624.75)}
    assert state.temperatures_c == {"cpu-thermal": 48.593, "gpu-thermal": 45.5, "tj-thermal": 48.593}
    assert state.temperature_c == 48.593
    assert (state.throttled, state.reasons) == (False, ())
    assert state.load == 1.25


def test_laptop_tells_its_state(tmp_path: Path) -> None:
    state = read_state(root=make_laptop(tmp_path))
    assert state.power_mode == "powersave, low-power"
    assert state.clocks == {"cpu": Clock(403.0, 4400.0)}
    assert state.temperatures_c == {"acpitz": 41.0, "x86_pkg_temp": 56.0, "acpitz#3": 39.0}
    assert state.load == 0.1


def test_container_that_shows_nothing_has_a_state_without_readings(tmp_path: Path) -> None:
    assert read_state(root=make_container(tmp_path)) == DeviceState()
    assert read_state(root=tmp_path / "absent") == DeviceState()


def test_fan_and_warm_surface_are_no_throttling(tmp_path: Path) -> None:
    state = read_state(root=make_jetson(tmp_path))  # both at level 3 there
    assert state.throttled is False


def test_throttle_alert_tells_throttling(tmp_path: Path) -> None:
    state = read_state(root=write_files(make_jetson(tmp_path), {ALERT: "1\n"}))
    assert (state.throttled, state.reasons) == (True, ("gpu-throttle-alert",))


@pytest.mark.parametrize("kind", ["thermal-cpufreq-0", "cpufreq-cpu8", "devfreq-gpu-gpc-0", "Processor"])
def test_kernel_that_holds_clocks_down_tells_throttling(tmp_path: Path, kind: str) -> None:
    device = "sys/class/thermal/cooling_device11"
    write_files(make_laptop(tmp_path), {f"{device}/type": kind, f"{device}/cur_state": "2"})
    assert read_state(root=tmp_path).reasons == (kind,)


def test_over_current_since_the_last_reading_tells_throttling(tmp_path: Path) -> None:
    reader = StateReader(make_jetson(tmp_path))
    first = reader.read()
    write_files(tmp_path, {OVER_CURRENT: "8\n"})
    second = reader.read(first)
    assert (second.throttled, second.reasons) == (True, ("over-current oc3",))
    assert reader.read(second).throttled is False


def test_heat_counters_tell_throttling_from_the_second_reading_on(tmp_path: Path) -> None:
    reader = StateReader(make_laptop(tmp_path))
    first = reader.read()
    assert first.throttled is None
    second = reader.read(first)
    assert second.throttled is False
    write_files(tmp_path, {"sys/devices/system/cpu/cpu2/thermal_throttle/package_throttle_count": "10\n"})
    third = reader.read(second)
    assert (third.throttled, third.reasons) == (True, ("package heat",))


def test_counter_that_starts_anew_tells_no_throttling(tmp_path: Path) -> None:
    reader = StateReader(make_jetson(tmp_path))
    first = reader.read()
    write_files(tmp_path, {OVER_CURRENT: "0\n"})
    assert reader.read(first).throttled is False


def test_power_mode_without_its_name_is_told_by_its_number(tmp_path: Path) -> None:
    make_jetson(tmp_path)
    (tmp_path / "etc" / "nvpmodel.conf").unlink()
    assert read_state(root=tmp_path).power_mode == "mode 2"


def test_governor_stands_in_where_nvpmodel_tells_nothing(tmp_path: Path) -> None:
    write_files(make_jetson(tmp_path), {"var/lib/nvpmodel/status": "?\n"})
    assert read_state(root=tmp_path).power_mode == "schedutil"


@pytest.mark.parametrize(
    "name",
    [
        "cur_freq",
        "max_freq",
        "scaling_cur_freq",
        "temp",
        "type",
        "cur_state",
        "status",
        "name",
        "oc3_event_cnt",
        "loadavg",
    ],
)
@pytest.mark.parametrize("content", ["", "no number\n", "\0\0", "1e999"])
def test_broken_files_are_no_failure(tmp_path: Path, name: str, content: str) -> None:
    make_jetson(tmp_path)
    found = [path for path in tmp_path.rglob(name) if path.is_file()]
    assert found
    for path in found:
        path.write_text(content)
    state = read_state(read_state(root=tmp_path), root=tmp_path)
    assert state.throttled is not True
    assert state.load in {None, 1.25}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_files_are_no_failure(tmp_path: Path) -> None:
    make_jetson(tmp_path)
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").chmod(0)
    assert "cpu-thermal" not in read_state(root=tmp_path).temperatures_c


def test_files_that_go_away_are_no_failure(tmp_path: Path) -> None:
    reader = StateReader(make_jetson(tmp_path))
    first = reader.read()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.unlink()
    assert reader.read(first).throttled is None


def test_processor_without_a_zone_tells_its_temperature_by_hwmon(tmp_path: Path) -> None:
    chip = "sys/class/hwmon/hwmon2"
    write_files(make_container(tmp_path), {f"{chip}/name": "k10temp\n", f"{chip}/temp1_input": "63250\n"})
    assert read_state(root=tmp_path).temperatures_c == {"k10temp": 63.25}


def test_gpu_tells_its_state_through_nvml(tmp_path: Path) -> None:
    state = StateReader(make_laptop(tmp_path), Nvml(FakeNvmlModule())).read()
    assert state.clocks["gpu0"] == Clock(1565, 3105)
    assert state.temperature_c == 71
    assert state.throttled is False


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0x00, ()),
        (0x01, ()),  # idle
        (0x04, ()),  # at the power limit that it is set to
        (0x24, ("software thermal slowdown",)),
        (0x48, ("hardware slowdown", "hardware thermal slowdown")),
        (0x80, ("power brake",)),
    ],
)
def test_nvml_tells_why_clocks_are_held_down(tmp_path: Path, bits: int, reasons: tuple[str, ...]) -> None:
    state = StateReader(make_container(tmp_path), Nvml(FakeNvmlModule(reasons=bits))).read()
    assert (state.throttled, state.reasons) == (bool(reasons), reasons)


def test_gpu_that_tells_nothing_has_a_state_without_readings(tmp_path: Path) -> None:
    answers = [name for name in dir(FakeNvmlModule) if name.startswith("nvmlDeviceGet")]
    module = FakeNvmlModule(*(name for name in answers if not name.endswith(("Count", "HandleByIndex"))))
    assert StateReader(make_container(tmp_path), Nvml(module)).read() == DeviceState()


class Clockwork:
    """Seconds that go by when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def watch_jetson(root: Path) -> tuple[Watch, Clockwork]:
    clock = Clockwork()
    return Watch("Jetson", StateReader(make_jetson(root)), clock=clock), clock


def test_machine_says_how_the_device_fared(tmp_path: Path) -> None:
    watch, _ = watch_jetson(tmp_path)
    with watch.over() as span:
        pass
    assert span.machine == Machine(
        device="Jetson",
        power_mode="MODE_30W",
        clocks_mhz={"cpu": 1728.0, "17000000.gpu": 306.0},
        temperature_c=48.593,
        throttled=False,
    )


def test_state_is_read_at_most_once_a_second(tmp_path: Path) -> None:
    watch, clock = watch_jetson(tmp_path)
    first = watch.look()
    clock.now = 0.9
    assert watch.look() is first
    clock.now = 1.0
    assert watch.look() is not first


def test_throttling_between_the_ends_of_a_job_is_told(tmp_path: Path) -> None:
    watch, clock = watch_jetson(tmp_path)
    with watch.over() as span:
        write_files(tmp_path, {OVER_CURRENT: "8\n"})
        clock.now = 5.0
    assert span.machine.throttled is True
    assert span.machine.reasons == ("over-current oc3",)
    clock.now = 10.0
    with watch.over() as span:
        clock.now = 15.0
    assert span.machine.throttled is False


def test_highest_temperature_of_a_job_is_told(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone3/temp"
    watch, clock = watch_jetson(tmp_path)
    clock.now = 2.0
    write_files(tmp_path, {zone: "91000\n"})
    with watch.over() as span:
        write_files(tmp_path, {zone: "60000\n"})
        clock.now = 4.0
    assert span.machine.temperature_c == 91.0


def test_long_job_is_looked_at_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedside.device.watch.PERIOD_S", 0.01)
    watch = Watch("Jetson", StateReader(make_jetson(tmp_path)))
    with watch.over(long=True) as span:
        write_files(tmp_path, {ALERT: "2\n"})
        while not span.machine.throttled:
            pass
        write_files(tmp_path, {ALERT: "0\n"})
    assert span.machine.throttled is True
    assert span.machine.reasons == ("gpu-throttle-alert",)


def test_machine_of_a_device_that_tells_nothing(tmp_path: Path) -> None:
    watch = Watch("box", StateReader(make_container(tmp_path)))
    with watch.over() as span:
        pass
    assert span.machine == Machine("box")


def test_this_device_is_watched() -> None:
    with Watch().over() as span:
        pass
    assert span.machine.device
