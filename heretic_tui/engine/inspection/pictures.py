"""Projections as files: a picture of each layer, and an animation that flows from one to the next.

Matplotlib draws what stays the same, once. The points are laid over it with NumPy, and the animation is written frame
by frame in one palette, so that neither time nor memory goes into drawing the same again.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from heretic_tui.engine.background import Job, in_background
from heretic_tui.engine.errors import EngineError, write_failure
from heretic_tui.engine.events import Progress
from heretic_tui.engine.inspection.gif import GifWriter, Palette
from heretic_tui.engine.inspection.projection import Points, Projection, project_run
from heretic_tui.engine.inspection.residual_sets import ORIGINAL
from heretic_tui.engine.inspection.stage import Stage
from heretic_tui.names import is_device

if TYPE_CHECKING:
    from heretic_tui.engine.runs.run import Run
    from heretic_tui.profile.schema import Profile

Image: TypeAlias = NDArray[np.uint8]

PHASE = "Drawing the layers"
FRAMES, FRAME_MS, LAYER_MS = 20, 50, 1000
"""Interpolated frames between two layers, and how long a frame and a layer stay."""
GOOD_COLOR, BAD_COLOR = "royalblue", "darkorange"
GOOD_LABEL, BAD_LABEL = "Good prompts", "Bad prompts"
ANIMATION = "animation.gif"
LONGEST_NAME = 120
"""Bytes of a folder's name that are taken from the model's."""
LONGEST_TEXT = 200
GRACE = 0.2
"""Seconds that a closed job waits for its thread, which owns nothing that must be cleaned up."""


@dataclass(frozen=True)
class Look:
    """What the pictures say and how they look; texts are shown as they stand."""

    title: str
    model: str
    style: str = "dark_background"
    labels: tuple[str, str] = (GOOD_LABEL, BAD_LABEL)
    colors: tuple[str, str] = (GOOD_COLOR, BAD_COLOR)
    states: tuple[str, str] = ("original", "trial")
    """Names of the two states, where two stand side by side."""

    def check(self) -> None:
        """Raise `EngineError` for a style or a color that there is not, and say which there are."""
        import matplotlib.style
        from matplotlib.colors import is_color_like

        known = sorted(name for name in matplotlib.style.library if not name.startswith("_"))
        if self.style not in {"default", *known}:
            raise EngineError(
                f"Matplotlib has no style {_one_line(self.style, 60)!r}.",
                f"Set residual_plot_style to one of: default, {', '.join(known)}.",
            )
        for color in self.colors:
            if not is_color_like(color):
                raise EngineError(
                    f"Matplotlib has no color {_one_line(color, 60)!r}.",
                    'Set residual_plot_color to a name such as "royalblue", or to a number such as "#4169e1".',
                )


def look_of(profile: "Profile", model: str, trial: int = 0) -> Look:
    """The look that a profile asks for."""
    good, bad = profile.good_prompts, profile.bad_prompts
    return Look(
        _one_line(profile.residual_plot_title),
        _one_line(model),
        profile.residual_plot_style,
        (_one_line(good.residual_plot_label or GOOD_LABEL, 40), _one_line(bad.residual_plot_label or BAD_LABEL, 40)),
        (good.residual_plot_color or GOOD_COLOR, bad.residual_plot_color or BAD_COLOR),
        ("original model", f"trial {trial}"),
    )


def plots_folder(base: Path, model: str, trial: int = 0) -> Path:
    """Where the pictures of a model go: a folder of its own under `base`, whatever the model's name holds."""
    name = "".join("_" if letter in '/\\:*?"<>|' or not letter.isprintable() else letter for letter in model)
    name = name.strip(". ").encode(errors="replace")[-LONGEST_NAME:].decode(errors="ignore").strip(". ") or "model"
    name = f"_{name}" if is_device(name) else name
    return base / (f"{name}--trial-{trial}" if trial else name)


def plot_run(run: "Run", trial: int = ORIGINAL, base: Path | None = None) -> Job[tuple[Path, ...]]:
    """Draw a run's projection, computed where it is missing, below `base` or the profile's folder for plots."""
    projection = yield from project_run(run, trial)
    base = Path(run.profile.residual_plot_path).expanduser() if base is None else base
    look = look_of(run.profile, run.model_name, trial)
    return (yield from draw(projection, look, plots_folder(base, run.model_name, trial)))


def draw(projection: Projection, look: Look, folder: Path) -> Job[tuple[Path, ...]]:
    """Write `layer_001.png` ... and `animation.gif` to `folder`; ends with their paths.

    With a trial's points the two states stand side by side on the same axes. The files come under their names all at
    once at the end; a job that is closed or fails leaves nothing. Raises `EngineError`.
    """
    scene = _Scene(projection)
    frames = projection.layers + (projection.layers - 1) * FRAMES
    yield Progress(PHASE, 0, frames, "frames")
    stage = yield from in_background(lambda _: _stage(look, projection.layers, scene.panels), grace=GRACE)
    with _partial(folder) as partial:
        names = []
        samples = []
        for layer, points in enumerate(projection.all):
            places, colors = stage.laid(scene.split(points))
            samples.append(colors)
            image = stage.backdrop(layer)
            image.reshape(-1, 3)[places] = colors
            names.append(f"layer_{layer + 1:03}.png")
            _save(partial / names[-1], image)
            yield Progress(PHASE, 0, frames, "frames", names[-1])
        with (partial / ANIMATION).open("wb") as file:
            yield from _animate(stage, scene, projection.all, np.concatenate(samples), file)
        names.append(ANIMATION)
        for name in names:
            (partial / name).replace(folder / name)
    return tuple(folder / name for name in names)


def _stage(look: Look, layers: int, panels: int) -> Stage:
    look.check()
    return Stage(look, layers, panels)


class _Scene:
    """Which of all points belong to which set of which panel."""

    def __init__(self, projection: Projection) -> None:
        ends = np.cumsum([points.shape[1] for _, points in projection.arrays()])
        self._parts = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        self.panels = len(self._parts) // 2

    def split(self, points: Points) -> list[list[Points]]:
        """The good and the bad points of each panel."""
        sets = [points[part] for part in self._parts]
        return [sets[2 * panel : 2 * panel + 2] for panel in range(self.panels)]


def between(points: Points) -> Iterator[tuple[Points, int, bool]]:
    """Frames of the animation: points, the index of the layer they are nearest to, and whether they are a layer's."""
    for layer, here in enumerate(points):
        yield here, layer, True
        if layer + 1 < len(points):
            for step in range(1, FRAMES + 1):
                share = step / (FRAMES + 1)
                yield here * (1 - share) + points[layer + 1] * share, layer + round(share), False


def _animate(stage: Stage, scene: _Scene, points: Points, samples: Image, file: BinaryIO) -> Job[None]:
    """Write the animation, in a palette of the background's colors and of the points' that were seen."""
    palette = yield from in_background(lambda _: Palette(samples, stage.background), grace=GRACE)
    writer = GifWriter(file, stage.size, palette)
    frames = len(points) + (len(points) - 1) * FRAMES
    shown = -1
    for number, (moving, layer, whole) in enumerate(between(points), start=1):
        if layer != shown:
            shown, backdrop = layer, palette.exactly(stage.backdrop(layer))
        places, colors = stage.laid(scene.split(moving))
        image = backdrop.copy()
        image.reshape(-1)[places] = palette.indices(colors)
        writer.add(image, LAYER_MS if whole else FRAME_MS)
        yield Progress(PHASE, number, frames, "frames", ANIMATION)
    writer.finish()


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A folder inside `folder` that vanishes in the end; a `folder` that was made for nothing vanishes too."""
    partial = folder / f".{os.getpid()}.partial"
    try:
        partial.mkdir(parents=True, exist_ok=True)
        yield partial
    except OSError as error:
        raise write_failure(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()  # only an empty one goes


def _save(path: Path, image: Image) -> None:
    from PIL import Image as Pillow

    Pillow.fromarray(image).save(path, compress_level=6)


def _one_line(text: str, longest: int = LONGEST_TEXT) -> str:
    """A text as one line of letters that can be drawn."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return words if len(words) <= longest else words[: longest - 1] + "…"
