"""Pictures of atoms as shaded spheres, drawn by a small software renderer (NumPy only)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.data.colors import jmol_colors
from numpy.typing import NDArray

__all__ = ["element_colors", "element_radii", "render_atoms", "view_rotation"]

# The nine elements of the lava run: the usual hues, pushed apart where the common palettes nearly coincide.
_LAVA_COLORS = {
    "O": (0.80, 0.16, 0.14),
    "Si": (0.93, 0.76, 0.40),
    "Al": (0.62, 0.66, 0.74),
    "Fe": (0.20, 0.36, 0.72),
    "Ca": (0.27, 0.68, 0.33),
    "Na": (0.60, 0.38, 0.80),
    "Mg": (0.55, 0.85, 0.25),
    "K": (0.93, 0.48, 0.75),
    "Ti": (0.25, 0.75, 0.78),
}

_LIGHT = np.array([-0.45, 0.60, 0.66])
_AMBIENT, _DIFFUSE, _SPECULAR, _SHININESS = 0.40, 0.62, 0.28, 24.0
_FOG = 0.55  # how far the deepest atoms fade towards the background
_EDGE_COLOR = np.array([0.25, 0.25, 0.28])


def element_colors(elements: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """RGB colour (0 to 1) of each element: a fixed palette for the lava elements, Jmol's colours for the others."""
    colors: dict[str, tuple[float, float, float]] = {}
    for element in elements:
        red, green, blue = _LAVA_COLORS.get(element, jmol_colors[atomic_numbers[element]])
        colors[element] = (float(red), float(green), float(blue))
    return colors


def element_radii(atoms: Atoms, scale: float = 0.8) -> NDArray[np.float64]:
    """Radii in A for drawing: `scale` times the covalent radius, with large and small ones brought closer."""
    radius = covalent_radii[atoms.numbers]
    compressed: NDArray[np.float64] = scale * radius**0.6
    return compressed


def view_rotation(azimuth: float = 28.0, elevation: float = 18.0) -> NDArray[np.float64]:
    """Rotation matrix that turns (x, y, z) into (right, up, towards the viewer); angles in degrees."""
    a, e = np.radians(azimuth), np.radians(elevation)
    turn: NDArray[np.float64] = np.array([[np.cos(a), -np.sin(a), 0.0], [np.sin(a), np.cos(a), 0.0], [0.0, 0.0, 1.0]])
    # After the turn about z, z points up and -y to the viewer; then tilt.
    stand = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    tilt = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(e), -np.sin(e)], [0.0, np.sin(e), np.cos(e)]])
    rotation: NDArray[np.float64] = tilt @ stand @ turn
    return rotation


def render_atoms(
    atoms: Atoms,
    colors: Mapping[str, Sequence[float]] | NDArray[np.float64] | None = None,
    radii: NDArray[np.float64] | None = None,
    size: int = 900,
    pixels_per_angstrom: float | None = None,
    rotation: NDArray[np.float64] | None = None,
    show_cell: bool = True,
    supersample: int = 2,
) -> NDArray[np.float64]:
    """Draw atoms as shaded spheres with hidden surfaces removed, in parallel projection.

    Parameters
    ----------
    atoms : ase.Atoms
        Structure; atoms are wrapped into the cell.
    colors : mapping of element to RGB, or ndarray of shape (n_atoms, 3), optional
        Colours from 0 to 1. Default: `element_colors`.
    radii : ndarray, shape (n_atoms,), optional
        Radii in A. Default: `element_radii`.
    size : int
        Longer edge of the picture in pixels.
    pixels_per_angstrom : float, optional
        Fixed scale instead of `size`, for pictures that are compared.
    rotation : ndarray, shape (3, 3), optional
        Rows are the directions right, up and towards the viewer. Default: `view_rotation()`.
    show_cell : bool
        Draw the edges of the cell.
    supersample : int
        Pixels per picture pixel and axis, averaged at the end for smooth edges.

    Returns
    -------
    ndarray, shape (height, width, 3)
        RGB picture on white, 0 to 1, first row on top.
    """
    positions = atoms.get_positions(wrap=True)
    turn = view_rotation() if rotation is None else np.asarray(rotation, dtype=float)
    radius = element_radii(atoms) if radii is None else np.asarray(radii, dtype=float)
    color = _atom_colors(atoms, colors)
    corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], float) @ atoms.cell.array
    seen, frame = positions @ turn.T, corners @ turn.T

    low = np.minimum((seen - radius[:, None]).min(axis=0), frame.min(axis=0))
    high = np.maximum((seen + radius[:, None]).max(axis=0), frame.max(axis=0))
    if pixels_per_angstrom is None:
        pixels_per_angstrom = size / (1.04 * max(high[0] - low[0], high[1] - low[1]))
    scale = supersample * pixels_per_angstrom
    middle = 0.5 * (low + high)
    width, height = (int(np.ceil(1.04 * scale * (high[k] - low[k]))) for k in (0, 1))
    width, height = (supersample * -(-n // supersample) for n in (width, height))
    image = np.ones((height, width, 3), dtype=np.float32)
    depth = np.full((height, width), -np.inf, dtype=np.float32)

    def to_pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x = 0.5 * width + scale * (points[:, 0] - middle[0])
        y = 0.5 * height - scale * (points[:, 1] - middle[1])
        return np.column_stack([x, y, scale * points[:, 2]])

    nearest, farthest = scale * high[2], scale * low[2]
    for (x, y, z), r, rgb in zip(to_pixels(seen), scale * radius, color, strict=True):
        _draw_sphere(image, depth, x, y, z, r, rgb)
    fog = _FOG * np.clip((nearest - depth) / max(1e-9, nearest - farthest), 0.0, 1.0) ** 1.3
    image += np.where(np.isfinite(depth), fog, 0.0)[..., None].astype(np.float32) * (1.0 - image)
    if show_cell:
        _draw_cell(image, depth, to_pixels(frame), supersample)
    blocks = image.reshape(height // supersample, supersample, width // supersample, supersample, 3)
    return np.asarray(np.clip(blocks.mean(axis=(1, 3)), 0.0, 1.0), dtype=float)


def _atom_colors(
    atoms: Atoms, colors: Mapping[str, Sequence[float]] | NDArray[np.float64] | None
) -> NDArray[np.float64]:
    if isinstance(colors, np.ndarray):
        return colors
    table = element_colors(sorted(set(atoms.get_chemical_symbols()))) if colors is None else colors
    return np.array([table[symbol] for symbol in atoms.get_chemical_symbols()], dtype=float).reshape(-1, 3)


def _draw_sphere(
    image: NDArray[np.float32],
    depth: NDArray[np.float32],
    x: float,
    y: float,
    z: float,
    r: float,
    color: NDArray[np.float64],
) -> None:
    """Draw one sphere (pixels); every pixel knows its depth, so spheres may intersect and come in any order."""
    x0, x1 = max(0, int(x - r)), min(image.shape[1], int(x + r) + 2)
    y0, y1 = max(0, int(y - r)), min(image.shape[0], int(y + r) + 2)
    if x0 >= x1 or y0 >= y1:
        return
    dx = ((np.arange(x0, x1) + 0.5 - x) / r)[None, :]
    dy = ((y - np.arange(y0, y1) - 0.5) / r)[:, None]
    height2 = 1.0 - dx * dx - dy * dy
    dz = np.sqrt(np.maximum(height2, 0.0))
    at = z + r * dz
    visible = (height2 > 0.0) & (at > depth[y0:y1, x0:x1])
    if not visible.any():
        return
    light = _LIGHT / np.linalg.norm(_LIGHT)
    lambert = np.maximum(dx * light[0] + dy * light[1] + dz * light[2], 0.0)
    # Reflection of the light about the normal, seen from straight above: 2 (n.l) n_z - l_z.
    mirror = np.maximum(2.0 * lambert * dz - light[2], 0.0) ** _SHININESS
    rim = np.clip(dz / 0.35, 0.0, 1.0) ** 0.5  # darker outline that separates touching atoms
    shade = (_AMBIENT + _DIFFUSE * lambert) * (0.45 + 0.55 * rim)
    rgb = shade[..., None] * color + (_SPECULAR * mirror)[..., None]
    image[y0:y1, x0:x1][visible] = np.clip(rgb[visible], 0.0, 1.0)
    depth[y0:y1, x0:x1][visible] = at[visible]


def _draw_cell(
    image: NDArray[np.float32], depth: NDArray[np.float32], corners: NDArray[np.float64], thickness: int
) -> None:
    """Draw the twelve edges of the cell; parts behind atoms stay hidden."""
    half = max(1, round(0.75 * thickness))
    for a in range(8):
        for bit in (1, 2, 4):
            if a & bit:
                continue
            start, end = corners[a], corners[a | bit]
            n = int(np.ceil(np.abs(end - start)[:2].max())) + 1
            line = start + np.linspace(0.0, 1.0, n)[:, None] * (end - start)
            for sx in range(-half, half + 1):
                for sy in range(-half, half + 1):
                    column, row = (line[:, 0] + sx).astype(int), (line[:, 1] + sy).astype(int)
                    inside = (column >= 0) & (column < image.shape[1]) & (row >= 0) & (row < image.shape[0])
                    column, row, at = column[inside], row[inside], line[inside, 2]
                    free = at >= depth[row, column]
                    image[row[free], column[free]] = _EDGE_COLOR
