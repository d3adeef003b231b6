"""Memory readings: of the host always, of NVIDIA cards where there are any."""

import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from heretic_tui.engine import memory
from heretic_tui.engine.memory import MemoryReading, read_memory


class FakeNVML:
    """Stands for pynvml on a machine with these cards: (UUID, name, used, total)."""

    class NVMLError(Exception):
        pass

    def __init__(self, *cards, driver=True):
        self.cards, self.driver, self.initialised = cards, driver, 0

    def nvmlInit(self):  # noqa: N802
        self.initialised += 1
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        if uuid != "MIG-1":
            raise self.NVMLError("Not Found")
        return (uuid, "Slice", 1, 4)

    def nvmlDeviceGetUUID(self, card):  # noqa: N802
        return card[0]

    def nvmlDeviceGetName(self, card):  # noqa: N802
        return card[1]

    def nvmlDeviceGetMemoryInfo(self, card):  # noqa: N802
        if card[3] is None:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(used=card[2], total=card[3])


@pytest.fixture
def machine(monkeypatch):
    """Put cards into the machine."""

    def plug(*cards, driver=True):
        fake = FakeNVML(*cards, driver=driver)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    memory._nvml.cache_clear()
    memory._cards.cache_clear()
    yield plug
    memory._nvml.cache_clear()
    memory._cards.cache_clear()


A, B = ("GPU-aa-1", "Big", 30, 100), ("GPU-bb-2", "Small", 5, 20)


def names():
    return [(reading.device, reading.name) for reading in read_memory()[:-1]]


def test_a_reading_knows_what_is_free():
    reading = MemoryReading("cuda:0", "Big", 25, 100)
    assert (reading.free, reading.fraction) == (75, 0.25)


def test_a_device_without_memory_is_empty_and_not_an_error():
    reading = MemoryReading("host", "", 0, 0)
    assert (reading.free, reading.fraction) == (0, 0.0)


def test_the_host_comes_last_with_what_is_in_use(machine):
    machine(A)
    *_, host = read_memory()
    there = psutil.virtual_memory()
    assert host.device == "host"
    assert host.total == there.total
    assert abs(host.free - there.available) < 0.2 * there.total


def test_every_card_is_read(machine):
    machine(A, B)
    assert read_memory()[:2] == (MemoryReading("cuda:0", "Big", 30, 100), MemoryReading("cuda:1", "Small", 5, 20))


def test_without_a_driver_there_is_the_host_alone_and_nobody_asks_again(machine):
    fake = machine(A, driver=False)
    assert [reading.device for reading in read_memory()] == ["host"]
    read_memory()
    assert fake.initialised == 1


def test_the_library_is_initialised_once(machine):
    fake = machine(A)
    read_memory()
    read_memory()
    assert fake.initialised == 1


def test_a_card_that_does_not_tell_its_memory_is_left_out(machine):
    machine(("GPU-cc", "Shared", 0, None), B)
    assert names() == [("cuda:1", "Small")]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1,0", ["Small", "Big"]),
        ("1", ["Small"]),
        ("GPU-bb", ["Small"]),
        ("GPU-", []),
        ("", []),
        ("-1", []),
        ("0,7,1", ["Big"]),
        ("MIG-1", ["Slice"]),
        ("MIG-2", []),
        ("nonsense", []),
    ],
)
def test_cuda_visible_devices_says_which_cards_and_in_which_order(machine, monkeypatch, visible, expected):
    machine(A, B)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert names() == [(f"cuda:{number}", name) for number, name in enumerate(expected)]


def test_a_reading_of_the_host_takes_under_two_milliseconds():
    read_memory()
    times = []
    for _ in range(50):
        began = time.perf_counter()
        read_memory()
        times.append(time.perf_counter() - began)
    assert sorted(times)[25] < 0.002
