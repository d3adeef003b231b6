"""How full the devices' memory is, read without torch: NVIDIA cards through NVML, the host through psutil."""

import errno
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil

from heretic_tui.engine.errors import EngineError

HOST = "host"
SIGNS = (
    "out of memory",
    "cannot allocate memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "cublas_status_alloc_failed",
)
"""What torch's back ends and the operating system say, in errors of no kind of their own, when memory ran out."""


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Bytes used and there in all on one device: `host`, or a card in torch's words (`cuda:0`)."""

    device: str
    name: str
    used: int
    total: int

    @property
    def free(self) -> int:
        """Bytes that can still be taken."""
        return max(0, self.total - self.used)

    @property
    def fraction(self) -> float:
        """The part in use, from 0 to 1."""
        return self.used / self.total if self.total else 0.0


def read_memory() -> tuple[MemoryReading, ...]:
    """Readings of the NVIDIA cards that this process may use, then of the host; takes under 2 ms on the host.

    Cards are numbered as `CUDA_VISIBLE_DEVICES` lists them (by index in the order of the bus, or by the
    beginning of a UUID), and in the order of the bus without it. CUDA itself numbers the fastest card first
    unless `CUDA_DEVICE_ORDER` is `PCI_BUS_ID`: with cards of several kinds the two may differ.
    """
    host = psutil.virtual_memory()
    cards = (_card(number, *found) for number, found in enumerate(_cards(os.environ.get("CUDA_VISIBLE_DEVICES"))))
    return (
        *(reading for reading in cards if reading is not None),
        MemoryReading(HOST, "Host memory", host.total - host.available, host.total),
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on an accelerator or on the host."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's own
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in SIGNS)


def ran_out(error: BaseException) -> EngineError:
    """Say that memory ran out where there is no smaller batch to try: in an edit of weights, in an export."""
    said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return EngineError(
        f"Memory ran out ({said}). All that was finished before is kept.",
        "Free some memory, or use a device with more of it, and go on; or use a smaller model or 4-bit weights.",
    )


@cache
def _nvml() -> Any | None:
    """NVML, initialised once for the whole process; None where there is no library or no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


@cache
def _cards(visible: str | None) -> tuple[tuple[Any, str], ...]:
    """Handles and names of the cards that `visible` lists; as in CUDA, the first entry that is none ends the list."""
    nvml = _nvml()
    if nvml is None:
        return ()
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        named = {nvml.nvmlDeviceGetUUID(handle): (handle, nvml.nvmlDeviceGetName(handle)) for handle in handles}
    except nvml.NVMLError:
        return ()
    if visible is None:
        return tuple(named.values())
    listed: list[tuple[Any, str]] = []
    for entry in visible.split(","):
        found = _listed_card(nvml, named, entry.strip())
        if found is None:
            break
        listed.append(found)
    return tuple(listed)


def _listed_card(nvml: Any, named: dict[str, tuple[Any, str]], entry: str) -> tuple[Any, str] | None:
    if entry.isdecimal():
        return list(named.values())[int(entry)] if int(entry) < len(named) else None
    if entry.startswith("MIG-"):  # a slice of a card has a handle of its own
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(entry)
            return handle, nvml.nvmlDeviceGetName(handle)
        except nvml.NVMLError:
            return None
    matching = [found for uuid, found in named.items() if entry.startswith("GPU-") and uuid.startswith(entry)]
    return matching[0] if len(matching) == 1 else None


def _card(number: int, handle: Any, name: str) -> MemoryReading | None:
    """One card's reading; None where it has no memory of its own, or has fallen off the bus."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError:
        return None
    return MemoryReading(f"cuda:{number}", name, int(memory.used), int(memory.total))
