"""Strict reading of run files: a mapping becomes dataclasses; what does not fit is an error that names its path.

Nothing here knows what the settings mean; `grace_md.training.config` and `grace_md.smax.config` do.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

__all__ = ["ConfigError", "apply_overrides", "parse", "read_mapping", "to_plain"]

T = TypeVar("T")

# YAML 1.1 takes `8e-3` for a text, since its numbers need a dot.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class ConfigError(ValueError):
    """A setting that cannot be used; the message names its path, its value and what is expected."""


def read_mapping(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML, JSON or TOML file, by its ending. YAML needs PyYAML; the others come with Python.

    Raises
    ------
    FileNotFoundError, ConfigError
        For a missing file, an unknown ending, a syntax error, a repeated key and for anything but a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no run file `{path}`; give an existing .yaml, .json or .toml file.")
    text = path.read_text(encoding="utf-8")
    readers = {".yaml": _from_yaml, ".yml": _from_yaml, ".json": _from_json, ".toml": _from_toml}
    if path.suffix not in readers:
        raise ConfigError(f"`{path}` ends in `{path.suffix}`; a run file ends in {', '.join(sorted(readers))}.")
    found = readers[path.suffix](text, path)
    if not isinstance(found, dict):
        raise ConfigError(f"`{path}` holds {_kind(found)}, not sections such as `data:` and `fit:`.")
    return found


def _from_yaml(text: str, path: Path) -> Any:
    try:
        import yaml  # noqa: PLC0415 - optional
    except ImportError:
        raise ConfigError(
            f"`{path}` needs PyYAML; install it with `pip install 'grace_md[train]'`, or write the run file as JSON "
            "or TOML."
        ) from None

    class Loader(yaml.SafeLoader):  # type: ignore[misc, unused-ignore]
        """PyYAML lets the last of two equal keys win without a word."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    line = node.start_mark.line + 1
                    raise ConfigError(f"`{path}`: the key `{key}` appears twice in the section from line {line}.")
            found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
            return found

    try:
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"`{path}` is not valid YAML: {' '.join(str(error).split())}.") from None


def _from_json(text: str, path: Path) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"`{path}`: the key `{key}` appears twice in one section.")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ConfigError(f"`{path}` is not valid JSON: {error}.") from None


def _from_toml(text: str, path: Path) -> Any:
    try:
        import tomllib  # noqa: PLC0415 - from Python 3.11 on
    except ImportError:
        raise ConfigError(f"`{path}`: TOML needs Python 3.11; write the run file as JSON or YAML.") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"`{path}` is not valid TOML: {error}.") from None


def apply_overrides(mapping: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `mapping` with ``"fit.lr=0.004"`` and the like applied; values are JSON, or else text.

    ``key=null`` removes a setting, so that its default holds.
    """
    result: dict[str, Any] = json.loads(json.dumps(dict(mapping)))
    for override in overrides:
        name, equals, text = override.partition("=")
        keys = name.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"`--set {override}` is not of the form section.key=value, for example fit.lr=0.004.")
        section = result
        for depth, key in enumerate(keys[:-1]):
            inner = section.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"`--set {override}`: `{'.'.join(keys[: depth + 1])}` is {inner!r}, not a section.")
            section = inner
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text.strip()
        if value is None:
            section.pop(keys[-1], None)
        else:
            section[keys[-1]] = value
    return result


def parse(kind: type[T], value: Any, path: str = "") -> T:
    """Return `value` as an instance of the dataclass `kind`; `path` is how messages call it.

    Raises ConfigError for unknown keys (with the most similar known one), missing keys and values of a wrong type.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"`{path}` is {_kind(value)}, not a section with the keys {_names(kind)}.")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for key in value:
        if key not in fields:
            where = f" in `{path}`" if path else ""
            close = difflib.get_close_matches(str(key), list(fields), n=1, cutoff=0.5)
            hint = f"did you mean `{close[0]}`?" if close else f"known keys: {_names(kind)}."
            raise ConfigError(f"unknown key `{key}`{where}; {hint}")
    arguments = {}
    for name, field in fields.items():
        inner = f"{path}.{name}" if path else name
        if name in value:
            arguments[name] = _convert(hints[name], value[name], inner)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"`{inner}` is missing; it has no default.")
    return kind(**arguments)


def _names(kind: type[Any]) -> str:
    return ", ".join(field.name for field in dataclasses.fields(kind))


def _kind(value: Any) -> str:
    names = {dict: "a section", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number"}
    return "empty" if value is None else f"{names.get(type(value), type(value).__name__)} ({value!r})"


def _convert(kind: Any, value: Any, path: str) -> Any:
    """`value` as `kind`: a dataclass, number, text, flag, literal, list, mapping, or a union of these."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, path)
    if origin is Literal:
        if value in arguments and type(value) in {type(a) for a in arguments}:
            return value
        close = difflib.get_close_matches(str(value), [str(a) for a in arguments], n=1)
        hint = f"; did you mean `{close[0]}`?" if close else "."
        raise ConfigError(f"`{path}` = {value!r} must be one of {', '.join(map(str, arguments))}{hint}")
    if origin is list:
        if isinstance(value, list):
            return [_convert(arguments[0], item, f"{path}[{k}]") for k, item in enumerate(value)]
        raise ConfigError(f"`{path}` is {_kind(value)}, not a list.")
    if origin is dict:
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: _convert(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
        raise ConfigError(f"`{path}` is {_kind(value)}, not a section with names as keys.")
    if dataclasses.is_dataclass(kind):
        return parse(kind, value, path)  # type: ignore[arg-type]
    return _convert_plain(kind, value, path)


def _convert_plain(kind: Any, value: Any, path: str) -> Any:
    if kind is float and not isinstance(value, bool):
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            value = float(value)
        if isinstance(value, (int, float)):
            if not math.isfinite(value):
                raise ConfigError(f"`{path}` = {value!r} must be finite.")
            return float(value)
    if kind is int and not isinstance(value, bool):
        if isinstance(value, int):
            return value
        if isinstance(value, (float, str)) and _NUMBER.fullmatch(str(value).strip()) and float(value).is_integer():
            return int(float(value))
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str):
        return value
    if kind is type(None) and value is None:
        return None
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "empty"}
    raise ConfigError(f"`{path}` is {_kind(value)}, not {names.get(kind, str(kind))}.")


def _convert_union(kinds: Sequence[Any], value: Any, path: str) -> Any:
    """The first member that takes the value. If none does: the message of the one of the same shape."""
    errors: list[tuple[Any, ConfigError]] = []
    for kind in kinds:
        try:
            return _convert(kind, value, path)
        except ConfigError as error:
            errors.append((kind, error))
    for kind, problem in errors:
        origin = typing.get_origin(kind)
        same = (
            (isinstance(value, Mapping) and (dataclasses.is_dataclass(kind) or origin is dict))
            or (isinstance(value, list) and origin is list)
            or (isinstance(value, str) and origin is Literal)
        )
        if same:
            raise problem
    raise errors[0][1]


def to_plain(value: Any) -> Any:
    """Return dataclasses as dictionaries, ready for JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value
