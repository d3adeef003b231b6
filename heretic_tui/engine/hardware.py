"""Devices and what is in their memory, by torch."""

import gc
from contextlib import suppress

import psutil
import torch


def accelerator() -> str | None:
    """The kind of accelerator that torch sees (`cuda`, `mps`, `xpu`, ...), or None."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found is not None else None


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on `device`: the accelerator's free memory, or the host's available memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


def release_memory() -> None:
    """Give cached memory back after a failure."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory() -> dict[str, int]:
    """Peak bytes in use so far: `host` (resident) and one entry per CUDA device."""
    peaks = {}
    with suppress(ImportError):
        import resource

        peaks["host"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for index in range(torch.cuda.device_count()):
        peaks[f"cuda:{index}"] = torch.cuda.max_memory_allocated(index)
    return peaks
