"""Files shipped with the package: the starter model (provenance and licences in ``README.md`` beside this file)."""

from __future__ import annotations

from pathlib import Path

__all__ = ["available_models", "find_model", "model_path"]

_FOLDER = Path(__file__).resolve().parent


def available_models() -> list[str]:
    """Names that :func:`model_path` accepts."""
    return sorted(path.stem for path in _FOLDER.glob("*.npz"))


def model_path(name: str = "lava9_1l") -> Path:
    """Path of a model shipped with the package.

    Parameters
    ----------
    name : str
        File name without ``.npz``. ``"lava9_1l"`` is the starter model for O, Si, Al, Fe, Ca, Na, Mg, K and Ti.

    Raises
    ------
    ValueError
        If no such model is shipped.
    """
    path = _FOLDER / f"{name}.npz"
    if path.parent != _FOLDER or not path.is_file():
        raise ValueError(f"`name` = {name!r} is not a shipped model; available: {', '.join(available_models())}.")
    return path


def find_model(name: str) -> Path:
    """Path of a weight file: `name` itself, or the shipped model of that name.

    Raises
    ------
    FileNotFoundError
        If there is neither.
    """
    path = Path(name)
    if path.exists():
        return path
    if name in available_models():
        return model_path(name)
    raise FileNotFoundError(
        f"There is no weight file `{name}`; give an existing .npz file or a shipped model "
        f"({', '.join(available_models())})."
    )
