"""Animated GIFs, written frame by frame in one palette: of each frame only what changed.

The form is that of the GIF89a specification; the compression is Pillow's.
"""

import struct
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""Either `(height, width)`, indices of a palette, or `(height, width, 3)`, colors."""

COLORS = 256
EXACT = 16
"""How many of the commonest colors are kept exactly."""
BITS = 6
"""How finely a color is told from another when it is looked up."""
BLOCK = 1 << 14


class Palette:
    """Few colors that stand for those of a background, whose commonest are among them, and of samples `(pixels, 3)`."""

    def __init__(self, samples: Image, background: Image) -> None:
        from PIL import Image as Pillow

        colors, counts = np.unique(_packed(background), return_counts=True)
        common = _unpacked(colors[np.argsort(counts)[::-1][:EXACT]])
        seen = np.concatenate([samples, np.repeat(_unpacked(colors), len(samples) // len(colors) // 4 + 1, axis=0)])
        found = Pillow.fromarray(seen[None]).quantize(COLORS - len(common)).getpalette() or []
        others = np.array(found, np.uint8).reshape(-1, 3)[: COLORS - len(common)]
        self.colors = np.concatenate([common, others])
        levels = ((np.arange(1 << BITS) + 0.5) * (256 >> BITS)).astype(np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
        self._nearest = self._search(cube)

    def _search(self, colors: Image) -> Image:
        """Index of the nearest color."""
        own = self.colors.astype(np.float32)
        squares = np.square(own).sum(axis=1)
        blocks = np.array_split(colors.astype(np.float32), len(colors) // BLOCK + 1)
        nearest = [np.argmin(squares - 2 * block @ own.T, axis=1) for block in blocks]
        return np.concatenate(nearest).astype(np.uint8)

    def exactly(self, image: Image) -> Image:
        """Indices `(height, width)` of an image with few colors, each the nearest there is."""
        colors, places = np.unique(_packed(image), return_inverse=True)
        indices: Image = self._search(_unpacked(colors))[places].reshape(image.shape[:2])
        return indices

    def indices(self, colors: Image) -> Image:
        """Indices of colors `(pixels, 3)`, nearly the nearest, quickly."""
        coarse = colors.astype(np.int32) >> (8 - BITS)
        found: Image = self._nearest[(coarse[:, 0] << 2 * BITS) | (coarse[:, 1] << BITS) | coarse[:, 2]]
        return found


class GifWriter:
    """Writes an animation that begins again at its end."""

    def __init__(self, file: BinaryIO, size: tuple[int, int], palette: Palette) -> None:
        self.file = file
        self._before: Image | None = None
        table = np.zeros((COLORS, 3), np.uint8)
        table[: len(palette.colors)] = palette.colors
        file.write(b"GIF89a" + struct.pack("<HHBBB", *size, 0b1_111_0_111, 0, 0) + table.tobytes())
        file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")

    def add(self, image: Image, milliseconds: int) -> None:
        """Write a frame of indices `(height, width)`."""
        left, top, changed = self._changed(image)
        self._before = image
        height, width = changed.shape
        self.file.write(b"\x21\xf9\x04" + struct.pack("<BHBB", 0b0_001_0_0, milliseconds // 10, 0, 0))
        self.file.write(b"\x2c" + struct.pack("<HHHHBB", left, top, width, height, 0, 8))
        self.file.write(_compressed(changed) + b"\x00")

    def finish(self) -> None:
        """Write the end."""
        self.file.write(b"\x3b")

    def _changed(self, image: Image) -> tuple[int, int, Image]:
        """Place and content of the smallest part that differs from the frame before."""
        if self._before is None:
            return 0, 0, image
        differs = image != self._before
        rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
        if not len(rows):
            return 0, 0, image[:1, :1]
        left, top = int(columns[0]), int(rows[0])
        return left, top, image[top : rows[-1] + 1, left : columns[-1] + 1]


def _packed(colors: Image) -> NDArray[np.int32]:
    """Colors `(..., 3)` as one number each."""
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    packed: NDArray[np.int32] = (red << 16) | (green << 8) | blue
    return packed


def _unpacked(numbers: NDArray[np.int32]) -> Image:
    """What `_packed` packed, `(colors, 3)`."""
    return np.stack([numbers >> 16, numbers >> 8, numbers], axis=-1).astype(np.uint8)


def _compressed(indices: Image) -> bytes:
    """The data blocks of an image."""
    from PIL import Image as Pillow

    image = Pillow.fromarray(np.ascontiguousarray(indices))
    image.encoderconfig = (8, False)  # bits, not interlaced
    return image.tobytes("gif", "L")
