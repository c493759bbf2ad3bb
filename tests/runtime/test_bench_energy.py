"""Joules a study, on files of devices that were made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from bedside.bench.energy import Recorder, Window, account
from bedside.bench.meters import InaMeter, NvmlMeter, RaplMeter, find_meters
from bedside.device.nvml import GpuEnergy, Nvml
from bedside.device.tree import Tree
from made_bench import RAPL_RANGE, ZONES, make_rapl, spend
from made_devices import FakeNvmlModule, make_container, make_jetson, write_files


def rails(root: Path, **watts: tuple[int, int]) -> Path:
    """An INA3221 with these labels, in mV and mA."""
    chip = "sys/class/hwmon/hwmon1"
    files = {f"{chip}/name": "ina3221\n"}
    for channel, (label, (volts, amperes)) in enumerate(watts.items(), 1):
        files |= {
            f"{chip}/in{channel}_label": f"{label}\n",
            f"{chip}/in{channel}_input": f"{volts}\n",
            f"{chip}/curr{channel}_input": f"{amperes}\n",
        }
    return write_files(root, files)


class MadeNvml:
    """NVML of GPUs that tell what they are told to."""

    def __init__(self, *told: GpuEnergy) -> None:
        self.told = told

    def read_energy(self) -> tuple[GpuEnergy, ...]:
        """As `Nvml.read_energy`."""
        return self.told


def test_processors_count_packages_and_their_memory(tmp_path: Path) -> None:
    meter = RaplMeter(Tree(make_rapl(tmp_path)))
    assert meter.counted == ("rapl package-0", "rapl package-1", "rapl package-0 dram")
    assert "rapl psys" in meter.joules
    spend(tmp_path, "intel-rapl:0", 3_500_000)
    spend(tmp_path, "intel-rapl:0:0", 2_000_000)
    meter.read(1.0)
    assert meter.joules["rapl package-0"] == pytest.approx(2.5)
    assert meter.joules["rapl package-0 core"] == pytest.approx(1.0)
    assert meter.joules["rapl package-1"] == 0.0


def test_counter_that_begins_anew_is_taken_as_such(tmp_path: Path) -> None:
    make_rapl(tmp_path)
    spend(tmp_path, "intel-rapl:0", RAPL_RANGE - 1_000_000)
    meter = RaplMeter(Tree(tmp_path))
    spend(tmp_path, "intel-rapl:0", 500_000)
    meter.read(1.0)
    spend(tmp_path, "intel-rapl:0", 700_000)
    meter.read(2.0)
    assert meter.joules["rapl package-0"] == pytest.approx(1.7, abs=1e-5)


def test_counter_that_is_lost_for_a_while_is_made_up_for(tmp_path: Path) -> None:
    meter = RaplMeter(Tree(make_rapl(tmp_path)))
    write_files(tmp_path, {f"{ZONES}/intel-rapl:0/energy_uj": ""})
    meter.read(1.0)
    spend(tmp_path, "intel-rapl:0", 2_000_000)
    meter.read(2.0)
    assert meter.joules["rapl package-0"] == pytest.approx(1.0)


def test_jetson_with_one_input_counts_that_alone(tmp_path: Path) -> None:
    rails(tmp_path, VDD_IN=(5000, 2000), VDD_CPU_GPU_CV=(5000, 800), VDD_SOC=(5000, 300))
    meter = InaMeter(Tree(tmp_path))
    assert meter.counted == ("ina VDD_IN",)
    meter.read(0.0)
    rails(tmp_path, VDD_IN=(5000, 4000), VDD_CPU_GPU_CV=(5000, 800), VDD_SOC=(5000, 300))
    meter.read(2.0)
    assert meter.joules["ina VDD_IN"] == pytest.approx((10 + 20) / 2 * 2)
    assert meter.joules["ina VDD_SOC"] == pytest.approx(1.5 * 2)


def test_jetson_without_one_input_counts_its_rails(tmp_path: Path) -> None:
    rails(tmp_path, VDD_GPU_SOC=(19_000, 200), VDD_CPU_CV=(19_000, 100), VIN_SYS_5V0=(5000, 500))
    write_files(
        tmp_path, {"sys/class/hwmon/hwmon2/name": "ina3221", "sys/class/hwmon/hwmon2/in1_label": "NC"}
    )
    meter = InaMeter(Tree(tmp_path))
    assert meter.counted == ("ina VDD_GPU_SOC", "ina VDD_CPU_CV", "ina VIN_SYS_5V0")


def test_sensor_that_is_switched_off_for_a_while_is_bridged(tmp_path: Path) -> None:
    meter = InaMeter(Tree(rails(tmp_path, VDD_IN=(5000, 1000))))
    meter.read(0.0)
    write_files(tmp_path, {"sys/class/hwmon/hwmon1/curr1_input": ""})
    meter.read(1.0)
    rails(tmp_path, VDD_IN=(5000, 1000))
    meter.read(2.0)
    assert meter.joules["ina VDD_IN"] == pytest.approx(10.0)


def test_gpus_tell_energy_or_power() -> None:
    nvml = MadeNvml(GpuEnergy(100.0, 50.0), GpuEnergy(None, 30.0), GpuEnergy(None, None))
    meter = NvmlMeter(nvml)  # type: ignore[arg-type]
    assert meter.counted == ("gpu0", "gpu1")
    meter.read(0.0)
    nvml.told = (GpuEnergy(150.0, 50.0), GpuEnergy(None, 50.0), GpuEnergy(None, None))
    meter.read(3.0)
    assert meter.joules == {"gpu0": pytest.approx(50.0), "gpu1": pytest.approx(120.0)}


def test_nvml_is_asked_for_energy_and_power() -> None:
    class Module(FakeNvmlModule):
        def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
            return 1_500_000

        def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
            return 31_500

    assert Nvml(Module()).read_energy() == (GpuEnergy(1500.0, 31.5),)
    assert Nvml(Module("nvmlDeviceGetTotalEnergyConsumption")).read_energy() == (GpuEnergy(None, 31.5),)


def test_machine_without_meters_says_why(tmp_path: Path) -> None:
    found, reasons = find_meters(root=make_container(tmp_path))
    assert found == []
    assert "no energy counter of the processor" in reasons[0]
    assert "INA3221" in reasons[1]
    assert "NVML" in reasons[2]


def test_counter_that_may_not_be_read_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_rapl(tmp_path)
    monkeypatch.setattr(Tree, "number", lambda self, path: None)  # as of a file of root's
    found, reasons = find_meters(root=tmp_path)
    assert found == []
    assert "sudo chmod a+r" in reasons[0]


def test_all_meters_of_a_machine_are_found(tmp_path: Path) -> None:
    make_jetson(tmp_path)
    rails(tmp_path, VDD_IN=(5000, 2000))
    found, reasons = find_meters(root=tmp_path, nvml=MadeNvml(GpuEnergy(None, 5.0)))  # type: ignore[arg-type]
    assert [type(each) for each in found] == [InaMeter, NvmlMeter]
    assert len(reasons) == 1


def test_recorder_tells_what_went_since_a_mark(tmp_path: Path) -> None:
    make_rapl(tmp_path)
    times = iter(float(number) for number in range(10_000))
    with Recorder([RaplMeter(Tree(tmp_path))], clock=lambda: next(times)) as recorder:
        mark = recorder.mark()
        spend(tmp_path, "intel-rapl:0", 5_000_000)
        spend(tmp_path, "intel-rapl:2", 9_000_000)
        window = recorder.since(mark)
    assert window.total_j == pytest.approx(4.0)  # the platform holds the package, and is not counted again
    assert window.domains_j["rapl psys"] == pytest.approx(8.0)
    assert window.seconds >= 1.0


def test_energy_is_above_idle() -> None:
    before, after = Window(2.0, 20.0, {}), Window(2.0, 24.0, {})
    found = account((before, after), [("offline", 4, Window(10.0, 190.0, {"gpu0": 190.0}))], ("gpu0",))
    (study,) = found.studies
    assert found.measured
    assert (found.idle_before_w, found.idle_after_w) == (10.0, 12.0)
    assert study.per_study_j == pytest.approx((190 - 11 * 10) / 4)
    assert (study.per_study_low_j, study.per_study_high_j) == pytest.approx((17.5, 22.5))


def test_energy_without_idle_power_or_studies_is_none() -> None:
    window = Window(10.0, 190.0, {})
    assert not account((None, None), [("offline", 4, window)], ()).measured
    assert not account((window, None), [("offline", 0, window)], ()).measured
    assert account((window, None), [("offline", 1, window)], ()).idle_after_w is None
