"""Axes: from values to cells, and ticks at round figures."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LARGEST = 1e100
"""Values from here on stand at the end of a scale and do not stretch it."""
SMALLEST = 1e-100
"""Values below this count as zero: the steps between them could not be told apart."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values between `low` and `high` to 0..1, linearly or by their logarithm."""

    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value stands between the ends; values outside go to the nearer end."""
        if self.logarithmic:
            value = math.log10(max(value, self.low))
            low, high = math.log10(self.low), math.log10(self.high)
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5

    def ticks(self, most: int) -> list[float]:
        """At most about `most` round values between the ends."""
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            step = max(1, math.ceil((last - first + 1) / max(1, most)))
            return [10.0**power for power in range(first, last + 1, step)]
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        rough = span / max(1, most)
        power = 10.0 ** math.floor(math.log10(rough))
        size = next(power * one for one in (1, 2, 5, 10) if power * one >= rough * (1 - 1e-9))
        lowest = math.ceil(self.low / size - 1e-9)
        return [index * size for index in range(lowest, math.floor(self.high / size + 1e-9) + 1)]


def scale_for(values: Iterable[float], *, logarithmic: bool = False, from_zero: bool = False) -> Scale:
    """A scale on which all finite values have room."""
    finite = [value if abs(value) >= SMALLEST else 0.0 for value in values if abs(value) < LARGEST]  # NaN fails too
    if logarithmic:
        positive = [value for value in finite if value > 0]
        low = min(positive, default=1e-3)
        high = max(positive, default=1.0)
        low = max(low, high * 1e-6)
        return Scale(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high) + 1e-9), True)
    low = 0.0 if from_zero else min(finite, default=0.0)
    high = max(finite, default=1.0)
    if high <= low:
        high = low + (abs(low) or 1.0)
    return Scale(min(low, high), high + (high - low) * 0.02)


def label(value: float) -> str:
    """A tick's value, as short as it can be."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.10g}" if abs(value) >= 1 else f"{round(value, 6):g}"


def wide_log(values: Sequence[float]) -> bool:
    """Whether positive values spread so far that only logarithms keep them apart."""
    positive = [value for value in values if SMALLEST <= value < LARGEST]
    return bool(positive) and max(positive) / min(positive) > 50
