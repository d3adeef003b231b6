"""How long projection, pictures and animation take, beside the reference tool on the same residual vectors.

    pip install --no-deps --target /tmp/reference heretic-llm==1.4.0 imageio
    python tests/benchmarks/projection.py --reference /tmp/reference [--residuals RUN/residuals.safetensors]

Each tool runs in a process of its own, twice, one after the other: the first run is cold (imports, compiled code read
from its cache, fonts), the second warm; `cpu` is the processor time of that, which other work on the machine disturbs
less. Quality is measured in the space of the vectors: trustworthiness of 10 neighbors, share of 30 neighbors kept, and
share of random triplets that keep their order. `move` is how far a point moves from layer to layer.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

from heretic_tui.engine.inspection.residual_sets import ResidualSets, load_residual_sets, save_residual_sets

TITLE = "Residual vectors of the two prompt sets (PaCMAP)"
MODEL = "example/model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--residuals", type=Path, help="residual vectors of a run; without it, invented ones")
    parser.add_argument("--reference", type=Path, help="folder that holds the reference tool")
    parser.add_argument("--prompts", type=int, default=400, help="prompts of each set")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        sets = load_residual_sets(options.residuals) if options.residuals else invented(options)
        sets = ResidualSets(*(one[: options.prompts, : options.layers + 1] for one in (sets.good, sets.bad)))
        path = Path(folder) / "residuals.safetensors"
        save_residual_sets(path, sets)
        found = {}
        for name in CHILDREN[: 2 if options.reference else 1]:
            command = [sys.executable, __file__, "--child", name, "--residuals", str(path)]
            command += ["--reference", str(options.reference)] if options.reference else []
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
            if done.returncode:
                sys.exit(done.stderr)
            found[name] = json.loads(done.stdout.splitlines()[-1])
    good, bad = sets.good.shape, sets.bad.shape
    print(f"{good[0]} + {bad[0]} prompts, {good[1] - 1} layers, {good[2]} wide, float32, {os.cpu_count()} cores")
    columns = ["projection", "pictures", "total", "cpu", "cold", "gif_mb", "trust", "kept", "triplets", "move"]
    print("".join(f"{column:>11}" for column in ("", *columns)))
    for name, figures in found.items():
        print(f"{name:>11}" + "".join(f"{figures[column]:>11.4g}" for column in columns))
    if len(found) == 2:
        ours, reference = found.values()
        for what in ("projection", "pictures", "total", "cpu", "cold"):
            print(f"{what}: {reference[what] / ours[what]:.1f} times as fast")


def invented(options: argparse.Namespace) -> ResidualSets:
    """Two sets of clusters in a stream that grows, and between which a direction opens in the middle layers."""
    rng = np.random.default_rng(0)
    width, rows = 576, options.layers + 1
    centres = rng.standard_normal((12, width)) * 3
    direction = rng.standard_normal(width)
    growth = np.linspace(1, 20, rows)[:, None]
    opens = np.clip((np.arange(rows) / rows - 0.3) * 3, 0, 1)[:, None]
    sets = []
    for sign in (-1, 1):
        base = centres[rng.integers(0, 12, options.prompts)][:, None] + sign * opens * direction
        noise = np.cumsum(rng.standard_normal((options.prompts, rows, width)), axis=1) / 3
        sets.append(((base + noise) * growth).astype(np.float32))
    return ResidualSets(*sets)


def child(options: argparse.Namespace) -> None:
    """Run one tool twice and print its figures as JSON."""
    sets = load_residual_sets(options.residuals)
    export = ours if options.child == "ours" else reference(options.reference, sets)
    figures: dict[str, float] = {}
    for warm in (False, True):
        shutil.rmtree("plots", ignore_errors=True)
        began, worked = time.perf_counter(), time.process_time()
        points, projection = export(sets)
        total = time.perf_counter() - began
        figures |= {"projection": projection, "pictures": total - projection, "total" if warm else "cold": total}
        figures["cpu"] = time.process_time() - worked
    figures["gif_mb"] = sum(path.stat().st_size for path in Path("plots").glob("*/*.gif")) / 1e6
    print(json.dumps(figures | quality(sets, points)))


def ours(sets: ResidualSets) -> tuple[np.ndarray, float]:
    from heretic_tui.engine.inspection.pictures import Look, draw, plots_folder
    from heretic_tui.engine.inspection.projection import project

    began = time.perf_counter()
    projection = finished(project(sets))
    seconds = time.perf_counter() - began
    finished(draw(projection, Look(TITLE, MODEL), plots_folder(Path("plots"), MODEL)))
    return projection.all, seconds


def finished(job):
    while True:
        try:
            next(job)
        except StopIteration as end:
            return end.value


def reference(folder: Path, sets: ResidualSets):
    """The reference tool's own analyzer, without the parts of it that load models; its projections are listened to."""
    if folder is None:
        sys.exit("--reference FOLDER is needed")
    sys.path.append(str(folder))
    package = ModuleType("heretic")
    package.__path__ = [str(folder / "heretic")]
    sys.modules["heretic"] = package
    for name, content in {
        "config": {"Settings": object},
        "model": {"Model": object},
        "utils": {"print": print},
    }.items():
        module = ModuleType(f"heretic.{name}")
        module.__dict__.update(content)
        sys.modules[module.__name__] = module

    def export(_: ResidualSets) -> tuple[np.ndarray, float]:
        import torch
        from heretic.analyzer import Analyzer
        from pacmap import PaCMAP

        points: list[np.ndarray] = []
        fit = PaCMAP.fit_transform
        began = time.perf_counter()
        ended = began

        def heard(self, *arguments, **options):
            nonlocal ended
            points.append(fit(self, *arguments, **options))
            ended = time.perf_counter()
            return points[-1]

        PaCMAP.fit_transform = heard
        colors = ("royalblue", "darkorange")
        good, bad = (SimpleNamespace(residual_plot_label=color, residual_plot_color=color) for color in colors)
        settings = SimpleNamespace(
            model=MODEL,
            residual_plot_path="plots",
            residual_plot_title=TITLE,
            residual_plot_style="dark_background",
            good_prompts=good,
            bad_prompts=bad,
        )
        model = SimpleNamespace(get_layers=lambda: [None] * (sets.rows - 1))
        try:
            Analyzer(settings, model, torch.tensor(sets.good), torch.tensor(sets.bad)).plot_residuals()
        finally:
            PaCMAP.fit_transform = fit
        return np.stack(points), ended - began

    return export


def quality(sets: ResidualSets, points: np.ndarray) -> dict[str, float]:
    """How well the planes show the vectors' space, and how far a point moves between layers, in standard deviations."""
    from sklearn.manifold import trustworthiness

    from heretic_tui.engine.inspection.projection import aligned

    trust, kept, ordered = [], [], []
    count = points.shape[1]
    triplets = np.random.default_rng(1).integers(0, count, (20000, 3)).T
    turned: list[np.ndarray] = []
    for row, plane in enumerate(points, start=1):
        vectors = np.concatenate([sets.good[:, row], sets.bad[:, row]]).astype(np.float64)
        here = aligned(plane, len(sets.good), len(sets.bad), turned[-1] if turned else None)
        turned.append(here)
        trust.append(trustworthiness(vectors, here, n_neighbors=min(10, count // 2 - 1)))
        far, near = distances(vectors), distances(here.astype(np.float64))
        first, second, third = triplets
        ordered.append(np.mean((far[first, second] < far[first, third]) == (near[first, second] < near[first, third])))
        sets_of = [np.argsort(table, axis=1)[:, 1 : min(31, count)] for table in (far, near)]
        kept.append(np.mean([len(np.intersect1d(*pair)) / len(pair[0]) for pair in zip(*sets_of, strict=True)]))
    moves = [
        np.linalg.norm(after - before, axis=1).mean() / after.std() for before, after in itertools.pairwise(turned)
    ]
    means = {"trust": trust, "kept": kept, "triplets": ordered, "move": moves or [0.0]}
    return {name: float(np.mean(values)) for name, values in means.items()}


def distances(places: np.ndarray) -> np.ndarray:
    centred = places - places.mean(axis=0)
    squares = np.square(centred).sum(axis=1)
    return squares[:, None] + squares - 2 * centred @ centred.T


CHILDREN = ("ours", "reference")

if __name__ == "__main__":
    main()
