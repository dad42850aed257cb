"""From three elements to a trained model, and whether entropy-maximised data are worth it, in under an hour.

    python examples/smax/closed_loop.py loop            # the same command goes on after an interruption
    python examples/smax/closed_loop.py loop --elements Fe,Si,O --number 600 --workers 8

1 generate an entropy-maximised set; 2 make rattled crystals of the same size; 3 label both with CHGNet + ZBL; 4 drop
what is out of range and split; 5 train a small GRACE model on each; 6 relax entropy-maximised structures with it, the
enrichment of the paper; 7 label what comes out; 8 train again on both; 9 test every model on every set: Table 1 of the
paper in small.

Needs torch and `grace_md[train,labels,plot]`. Every step is one `grace-md` command, printed as it runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

RULES = "max-force:200,max-stress:10,duplicates"  # eV/A, eV/A^3; the paper keeps energies of 200 eV/atom
ENTROPY, CRYSTALS, ENRICHED = "entropy", "crystals", "enriched"


class Loop:
    """The folder and the steps; a step whose result is there is not repeated.

    Parameters
    ----------
    args : as parsed by `arguments`
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.folder: Path = args.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.times: dict[str, float] = {}

    def path(self, name: str) -> Path:
        """Return a path in the folder."""
        return self.folder / name

    def run(self, *words: object, result: str) -> None:
        """Run a command unless its result is there; a failure ends the script with the exit code of the command."""
        if self.path(result).exists():
            print(f"-- {result} is there", flush=True)
            return
        command = [str(word) for word in words]
        print(f"\n$ {shlex.join(command)}", flush=True)
        if command[0] == "grace-md":
            command[:1] = [sys.executable, "-m", "grace_md.cli"]
        start = time.perf_counter()
        code = subprocess.run(command, check=False).returncode
        self.times[result] = self.times.get(result, 0.0) + time.perf_counter() - start
        if code:
            sys.exit(code)

    def generate(self) -> None:
        """Step 1. Up to 16 atoms, since labels and training cost as much as atoms."""
        settings, run = self.path("smax.yaml"), self.path("smax")
        self.run("grace-md", "smax", "init", "--preset", f"alloy:{self.args.elements}", "-o", settings,
                 result="smax.yaml")  # fmt: skip
        changes = ("composition.max_atoms=16", "composition.mean_atoms=8", f"seed={self.args.seed}")
        self.run("grace-md", "smax", "generate", settings, "-n", self.args.number, "--workers", self.args.workers,
                 "--resume", *(word for change in changes for word in ("--set", change)), "-o", run,
                 result="entropy.extxyz")  # fmt: skip
        self.run("grace-md", "smax", "export", run, "-o", self.path("entropy.extxyz"), result="entropy.extxyz")

    def crystals(self) -> None:
        """Step 2."""
        script = Path(__file__).with_name("crystals.py")
        self.run(sys.executable, script, self.path("crystals.extxyz"), "--elements", self.args.elements,
                 "--number", self.args.number, "--seed", self.args.seed, result="crystals.extxyz")  # fmt: skip

    def label(self, name: str) -> None:
        """Steps 3 and 4, or 7: labels, filters, a tenth of the structures for tests."""
        farm, labelled = self.path(f"farm_{name}"), self.path(f"{name}_labelled.extxyz")
        done = f"{name}_labelled.extxyz"
        if not farm.exists():
            self.run("grace-md", "label", "init", self.path(f"{name}.extxyz"), "--recipe", "chgnet-zbl", "-o", farm,
                     result=done)  # fmt: skip
        self.run("grace-md", "label", "run", farm, "--workers", self.args.workers, result=done)
        self.run("grace-md", "label", "collect", farm, "-o", labelled, result=done)
        self.run("grace-md", "merge", labelled, "-o", self.path(f"{name}_set.extxyz"), "--rules", RULES,
                 "--split", f"composition:{self.args.test_share}", "--drop-list", self.path(f"{name}_dropped.csv"),
                 result=f"{name}_set.test.extxyz")  # fmt: skip

    def train(self, model: str, sets: list[str]) -> None:
        """Steps 5 and 8: the same small model and the same number of optimiser steps for every set."""
        config = {
            "data": {"train": [str(self.path(f"{name}_set.train.extxyz").resolve()) for name in sets],
                     "split": 0.1, "check": "warn"},
            "model": {"preset": "1L-small", "cutoffs": 6.0, "lmax": 3, "n_rad": 12, "width": 16, "n_densities": 8,
                      "embedding": 16, "elements": sorted(self.args.elements.split(","))},
            "fit": {"epochs": max(1, round(self.args.epochs / len(sets))), "batch": 8, "ema": 0.98},
            "output": {"dir": str(self.path(f"fit_{model}").resolve())},
        }  # fmt: skip
        file = self.path(f"fit_{model}.json")
        file.write_text(json.dumps(config, indent=1), encoding="utf-8")
        self.run("grace-md", "train", file, result=f"fit_{model}/finished")
        self.path(f"fit_{model}/finished").touch()

    def enrich(self) -> None:
        """Step 6."""
        model = self.path("fit_entropy/model.npz")
        self.run("grace-md", "smax", "relax", self.path("entropy.extxyz"), "--model", model, "--cell", "mix:0.5",
                 "-o", self.path("enriched.extxyz"), result="enriched.extxyz")  # fmt: skip

    def table(self) -> None:
        """Step 9."""
        models = [f"{name}={self.path(f'fit_{name}')}/model.npz" for name in (CRYSTALS, ENTROPY, "both")]
        tests = [f"{name}={self.path(f'{name}_set.test.extxyz')}" for name in (CRYSTALS, ENTROPY, ENRICHED)]
        self.run("grace-md", "report", "fit", *models, *(word for test in tests for word in ("--data", test)),
                 "-o", self.path("table"), result="table")  # fmt: skip

    def verdict(self) -> None:
        """Print how much worse each model is on the other's set, by force errors."""
        report = json.loads(self.path("table/report.json").read_text(encoding="utf-8"))
        force = {(row["model"], row["data"]): row["forces_eV_per_A"] for row in report["cross"]}
        for trained, other in ((CRYSTALS, ENTROPY), (ENTROPY, CRYSTALS)):
            own, foreign = force[trained, trained], force[trained, other]
            print(f"trained on {trained}: {own:.3f} eV/A on its own test set, {foreign:.3f} eV/A on {other}, "
                  f"ratio {foreign / own:.2f}")  # fmt: skip

    def all(self) -> None:
        """Run all steps."""
        self.generate()
        self.crystals()
        self.label(ENTROPY)
        self.label(CRYSTALS)
        self.train(ENTROPY, [ENTROPY])
        self.train(CRYSTALS, [CRYSTALS])
        self.enrich()
        self.label(ENRICHED)
        self.train("both", [ENTROPY, ENRICHED])
        self.table()
        self.verdict()
        for name, seconds in self.times.items():
            print(f"{seconds:8.1f} s  {name}")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--elements", default="Al,Ni,Ti")
    parser.add_argument("--number", type=int, default=600, help="structures of each set (default 600)")
    parser.add_argument("--epochs", type=int, default=100, help="of the fits (default 100)")
    parser.add_argument("--test-share", type=float, default=0.15)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    Loop(arguments()).all()
