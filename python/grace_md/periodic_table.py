"""Draw one number per element as a periodic table in a terminal."""

from __future__ import annotations

from collections.abc import Mapping

CELL = 4  # characters per element
N_GROUPS = 18

# Rows of the table; the lanthanides and actinides stand below, under their neighbours of groups 3 to 17.
_MAIN_ROWS = [
    "H . . . . . . . . . . . . . . . . He",
    "Li Be . . . . . . . . . . B C N O F Ne",
    "Na Mg . . . . . . . . . . Al Si P S Cl Ar",
    "K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr",
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe",
    "Cs Ba La Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn",
    "Fr Ra Ac Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og",
]
_LOWER_ROWS = [
    ". . . Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu .",
    ". . . Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr .",
]


def position(symbol: str) -> tuple[int, int]:
    """Return (period, group) of an element; lanthanides and actinides stand below groups 3 to 17.

    Raises ValueError for a symbol that is no element.
    """
    for first, rows in ((1, _MAIN_ROWS), (6, _LOWER_ROWS)):
        for offset, row in enumerate(rows):
            cells = row.split()
            if symbol in cells and symbol != ".":
                return first + offset, cells.index(symbol) + 1
    raise ValueError(f"`{symbol}` is not a chemical element.")


def draw(values: Mapping[str, float]) -> str:
    """Return a table with the symbols of `values` and their numbers (one decimal) below; other elements are dots.

    Rows without any of the elements are left out. Symbols that are no element are listed at the end.
    """
    lines: list[str] = []
    for rows in (_MAIN_ROWS, _LOWER_ROWS):
        block: list[str] = []
        for row in rows:
            cells = row.split()
            if not any(cell in values for cell in cells):
                continue
            symbols = [cell if cell in values else ("" if cell == "." else "·") for cell in cells]
            numbers = [f"{values[cell]:.1f}" if cell in values else "" for cell in cells]
            block += ["".join(f"{text:>{CELL}}" for text in texts).rstrip() for texts in (symbols, numbers)]
        if block and lines:
            lines.append("")
        lines += block
    known = {cell for row in (*_MAIN_ROWS, *_LOWER_ROWS) for cell in row.split()}
    lines += [f"{symbol:>{CELL}} {value:.1f}" for symbol, value in values.items() if symbol not in known]
    return "\n".join(lines)
