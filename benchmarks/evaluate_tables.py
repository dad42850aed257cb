"""What evaluate_device.py prints."""

from __future__ import annotations

from typing import Any


def print_header() -> None:
    print(
        f"\n{'system':7s}{'model':11s}{'precision':>10s}{'atoms':>9s}{'us/atom':>10s}{'min':>9s}{'python':>9s}"
        f"{'new list':>10s}{'TFLOP/s':>9s}{'of FMA':>8s}{'of copy':>9s}{'MB':>8s}{'kB/atom':>9s}"
    )


def print_row(row: dict[str, Any]) -> None:
    mark = " " if row["n_quiet"] else "*"
    python = f"{row['us_per_atom_python']:9.3f}" if "us_per_atom_python" in row else " " * 9
    print(
        f"{row['system']:7s}{row['model']:11s}{row['precision']:>10s}{row['n_atoms']:9d}{row['us_per_atom_median']:10.3f}"
        f"{row['us_per_atom_min']:9.3f}{python}{row['us_per_atom_with_list']:10.3f}{row['tflops']:9.2f}"
        f"{100 * row['multiply_add_share']:7.1f}%{100 * row['copy_share']:8.1f}%{row['bytes_device'] / 1e6:8.0f}"
        f"{row['bytes_device'] / row['n_atoms'] / 1e3:9.2f}{mark}",
        flush=True,
    )


def print_rest(report: dict[str, Any]) -> None:
    """Print kernels, errors, small systems and ratios."""
    head = None
    for row in report["kernels"]:
        if head != (row["model"], row["precision"]):
            head = (row["model"], row["precision"])
            print(f"\nkernels of {row['model']} {row['precision']}, {row['n_atoms']} atoms, per step and atom")
            print(
                f"{'kernel':26s}{'launches':>9s}{'ns':>9s}{'share':>8s}{'of FMA':>9s}{'of copy':>9s}{'of matrix':>11s}"
            )
        shares = ""
        if "operations" in row:
            shares = f"{100 * row['multiply_add_share']:8.1f}%{100 * row['copy_share']:8.1f}%"
        if "matrix_share" in row:
            shares += f"{100 * row['matrix_share']:10.1f}%"
        print(f"{row['kernel']:26s}{row['launches']:9.1f}{row['ns_per_atom']:9.2f}{100 * row['share']:7.1f}%{shares}")
    print("\nagainst fp64: energy per atom, eV; force error / largest force")
    for row in report["precisions"]:
        print(
            f"{row['model']:11s}{row['precision']:>10s}{row['energy_error_eV_per_atom']:12.1e}"
            f"{row['force_error_of_largest']:12.1e}"
        )
    for row in report["small_systems"]:
        print(
            f"\n{row['model']}, {row['precision']}, {row['n_structures']} structures of {row['n_atoms']} atoms: "
            f"in one call {row['structures_per_second']:.0f} per second, {row['us_per_atom']:.2f} us/atom; one by one "
            f"{row['us_per_atom_one_by_one']:.2f} us/atom"
        )
    for row in report["results"]:
        if row["code"].startswith("MACE"):
            print(
                f"\n{row['code']}, {row['precision']}, {row['system']}, {row['n_atoms']} atoms: "
                f"{row['us_per_atom_median']:.2f} us/atom (list not included)"
            )
        elif "mace_ratio" in row:
            print(
                f"MACE / {row['model']}, {row['precision']}, {row['system']}, {row['n_atoms']} atoms: "
                f"{row['mace_ratio']:.1f}"
            )
