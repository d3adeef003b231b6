"""What full residual vectors cost over their mean: `python tests/benchmarks/residuals.py MODEL [PROMPTS] [BATCH]`.

The same prompts, the same batches, turn about: the mean (which a study needs), and every prompt's vectors after every
layer and between its attention and its MLP (which the inspector needs).
"""

import statistics
import sys
import time
from pathlib import Path

from heretic_tui.engine.ablation.residuals import residual_mean
from heretic_tui.engine.inspection.capture import capture_sets
from heretic_tui.engine.loading.loader import load
from heretic_tui.profile.schema import Profile

PROMPTS = Path(__file__).parent.parent / "end_to_end" / "prompts"
ROUNDS = 3


def result(job):
    """What a job returns."""
    try:
        while True:
            next(job)
    except StopIteration as stop:
        return stop.value


def timed(job):
    """Seconds that a job takes, by the clock and of the processor, and what it returns."""
    began, worked = time.perf_counter(), time.process_time()
    found = result(job)
    return time.perf_counter() - began, time.process_time() - worked, found


def both_means(model, good, bad):
    """The means of both sets."""
    yield from residual_mean(model, good, "good")
    yield from residual_mean(model, bad, "bad")


def texts(model, name, count):
    """That many templated prompts from a file, from its beginning again where it is too short."""
    lines = (PROMPTS / name).read_text(encoding="utf-8").splitlines()
    return [model.template(lines[index % len(lines)]) for index in range(count)]


def main() -> None:
    """Print the times of both, their ratio and the memory."""
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    model = result(load(sys.argv[1], Profile(dtypes=["float32"])))
    model.batch_size = int(sys.argv[3]) if len(sys.argv) > 3 else 32
    good, bad = texts(model, "plain_train.txt", count // 2), texts(model, "disclaimer_train.txt", count - count // 2)
    result(both_means(model, good[:32], bad[:32]))  # warm
    means, fulls, sets = [], [], None
    for _ in range(ROUNDS):
        means.append(timed(both_means(model, good, bad))[:2])
        *seconds, sets = timed(capture_sets(model, good, bad))
        fulls.append(seconds)
    places = f"{sets.rows} places" + (f" and {len(model.layers)} between attention and MLP" if sets.mid else "")
    print(f"{model.facts.architecture}, {model.facts.dtype} on {model.facts.device}, {count} prompts, {places}, "
          f"batches of {model.batch_size}, {ROUNDS} rounds")  # fmt: skip
    for index, clock in enumerate(("by the clock", "of the processor")):
        mean, full = ([times[index] for times in found] for found in (means, fulls))
        print(f"{clock}: means alone min {min(mean):.2f} s, median {statistics.median(mean):.2f} s; "
              f"full vectors min {min(full):.2f} s, median {statistics.median(full):.2f} s; "
              f"ratio of the minima {min(full) / min(mean):.2f}")  # fmt: skip
    print(f"memory of the vectors: {sets.bytes / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
