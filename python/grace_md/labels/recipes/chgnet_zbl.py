"""CHGNet with a repulsive core: labels at some structures per second, distilled from PBE and PBE+U. Not DFT.

CHGNet (Deng et al., Nature Machine Intelligence 5, 1031 (2023); model 0.3.0 of the package chgnet) was trained near
equilibrium; its energy of two atoms that meet falls instead of rising, which the screened nuclear repulsion cures.
"""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from grace_md.labels.recipes.base import Recipe, package_versions
from grace_md.labels.records import Label, LabelFailedError
from grace_md.labels.zbl import OUTER_FACTOR, zbl

__all__ = ["ChgnetZblRecipe", "ChgnetZblSettings"]

LAST_ELEMENT = 94
TESTED_VERSION = "0.4.2"


@dataclass(frozen=True)
class ChgnetZblSettings:
    """Settings.

    Attributes
    ----------
    core : whether the repulsive core is added
    core_factor : where it ends, as a fraction of the sum of the covalent radii
    device : "cpu" or "cuda"
    """

    core: bool = True
    core_factor: float = OUTER_FACTOR
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0.0 < self.core_factor <= 1.0:
            raise ValueError(f"`settings.core_factor` = {self.core_factor} must be in (0, 1], for example 0.75.")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"`settings.device` = {self.device!r} must be cpu or cuda.")


class ChgnetZblRecipe(Recipe):
    """CHGNet 0.3.0 plus ZBL. The model is loaded once per worker, from the installed package, without network."""

    name = "chgnet-zbl"
    settings_type = ChgnetZblSettings
    batch = 50

    def __init__(self, settings: ChgnetZblSettings | None = None) -> None:
        super().__init__(settings)
        self._model: Any = None

    def check(self, atoms: Atoms) -> None:
        """Refuse elements that CHGNet does not know, and structures that are not periodic in three directions."""
        if (atoms.numbers > LAST_ELEMENT).any() or (atoms.numbers < 1).any():
            unknown = sorted({chemical_symbols[z] for z in atoms.numbers if not 1 <= z <= LAST_ELEMENT})
            raise ValueError(f"CHGNet knows the elements up to Pu (Z = {LAST_ELEMENT}), not {', '.join(unknown)}.")
        if not atoms.pbc.all():
            raise ValueError(
                "CHGNet takes cells with three periodic directions only; put molecules in a box with 8 A of vacuum "
                "and set pbc to T T T."
            )

    def start(self, threads: int) -> None:
        """Load the model."""
        try:
            import torch  # noqa: PLC0415

            with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                from chgnet.model import CHGNet  # noqa: PLC0415

                torch.set_num_threads(threads)
                self._model = CHGNet.load(model_name="0.3.0", use_device=self.settings.device, verbose=False)
        except ImportError:
            raise RuntimeError(
                "The recipe chgnet-zbl needs CHGNet: `pip install torch --index-url "
                "https://download.pytorch.org/whl/cpu`, then `pip install 'grace_md[labels]'`."
            ) from None
        self._model.eval()
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)  # half of the time of a label is derivatives that nobody asks for
        self._model.graph_converter.set_isolated_atom_response("ignore")

    def label(self, atoms: Atoms, folder: Path) -> Label:
        """Label one structure."""
        if self._model is None:
            self.start(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            energy, forces, stress = self._chgnet(atoms)
        if self.settings.core:
            core_energy, core_forces, core_stress = zbl(atoms, self.settings.core_factor)
            assert core_stress is not None
            energy, forces, stress = energy + core_energy, forces + core_forces, stress + core_stress
        return Label(energy, forces, stress)

    def _chgnet(self, atoms: Atoms) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Energy, forces, stress by one backward pass; CHGNet's own function makes two, ready for a third."""
        import torch  # noqa: PLC0415
        from chgnet.model.model import BatchedGraph  # noqa: PLC0415
        from pymatgen.core import Structure  # noqa: PLC0415

        model, n = self._model, len(atoms)
        structure = Structure(atoms.cell.array, atoms.numbers.tolist(), atoms.get_scaled_positions(wrap=False))
        graph = model.graph_converter(structure)
        if graph is None:
            raise LabelFailedError("CHGNet cannot make a graph of this structure (isolated atoms)")
        graph = graph.to(self.settings.device)
        batch = BatchedGraph.from_graphs(
            [graph],
            bond_basis_expansion=model.bond_basis_expansion,
            angle_basis_expansion=model.angle_basis_expansion,
            compute_stress=True,
        )
        per_atom = model._compute(batch)["e"]
        position, strain = torch.autograd.grad(per_atom.sum() * n, [batch.atom_positions[0], batch.strains[0]])
        energy = float((per_atom.detach() + model.composition_model([graph])).sum()) * n
        volume = float(batch.volumes[0].detach())
        stress = full_3x3_to_voigt_6_stress(strain.cpu().numpy().astype(np.float64) / volume)
        # CHGNet's GPa and ASE's differ in the eighth digit; the labels of the starter data went through both.
        stress *= 160.21766208 * units.GPa
        return energy, -position.cpu().numpy().astype(np.float64), stress

    def versions(self) -> dict[str, str]:
        """Add CHGNet and torch; the parameters are those of model 0.3.0."""
        return {**package_versions("ase", "numpy", "chgnet", "torch"), "chgnet model": "0.3.0"}
