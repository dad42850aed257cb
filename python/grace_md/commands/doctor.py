"""`grace-md doctor`: whether all that is needed is installed and works together."""

from __future__ import annotations

import argparse

SIGNS = {True: "ok", False: "WRONG", None: "-"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments; the exit code is 1 if anything is wrong."""
    parser.epilog = "Exit code 1 if anything is wrong."


def run(_args: argparse.Namespace) -> int:
    """Print the findings and return 1 if one of them is bad."""
    from grace_md.doctor import examine  # noqa: PLC0415

    wrong = []
    for finding in examine():
        print(f"{SIGNS[finding.ok]:>5}  {finding.subject:<11} {finding.text}", flush=True)
        if finding.ok is False:
            wrong.append(finding.subject)
    print()
    if wrong:
        print(f"Something is wrong with: {', '.join(wrong)}.")
        return 1
    print("All is well: `lmp -in ...` and Python find pair_style grace.")
    return 0
