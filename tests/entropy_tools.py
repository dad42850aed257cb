"""A small smooth descriptor in NumPy, with the interface of the kernel, and settings for fast tests."""

from __future__ import annotations

import numpy as np

from grace_md import _core
from grace_md.smax.candidate import Batch
from grace_md.smax.config import SmaxConfig


class ToyDescriptor:
    """Densities rho_k = sum_j f_c g_k and squared dipoles |sum_j f_c g_k r/|r||^2; cutoffs by the rule of the centre.

    f_c = (1 - x^2)^3 with x = r/c, and g_k = exp(-((x - k/5) / 0.2)^2) for k = 1..4: 4 densities and 4 dipoles.
    """

    n_features = 8
    CENTRES = np.arange(1, 5) / 5.0
    WIDTH = 0.2

    def values(self, batch: Batch) -> np.ndarray:
        self.batch = batch
        largest = np.maximum.reduceat(batch.cutoffs, batch.first_atom[:-1])
        species = batch.owner.astype(np.int32)
        found = _core.build_neighbors(
            batch.positions, species, batch.cells, batch.periodic, batch.first_atom, np.diag(largest), 0.0, 1
        )
        center = np.repeat(np.arange(len(species)), np.diff(found.first))
        vector = found.vectors(batch.positions, batch.cells)
        distance = np.linalg.norm(vector, axis=1)
        near = distance < batch.cutoffs[center]
        self.center, self.neighbor = center[near], found.neighbor[near].astype(np.int64)
        self.vector, self.distance = vector[near], distance[near]
        self.cut = batch.cutoffs[self.center]
        self.unit = self.vector / self.distance[:, None]
        x = self.distance / self.cut
        u = (x[:, None] - self.CENTRES) / self.WIDTH
        envelope, slope, bell = (1.0 - x**2) ** 3, -6.0 * x * (1.0 - x**2) ** 2, np.exp(-(u**2))
        self.terms = envelope[:, None] * bell
        self.slopes = (bell * (slope[:, None] - envelope[:, None] * 2.0 * u / self.WIDTH)) / self.cut[:, None]
        rho = np.zeros((len(species), 4))
        self.dipole = np.zeros((len(species), 4, 3))
        np.add.at(rho, self.center, self.terms)
        np.add.at(self.dipole, self.center, self.terms[:, :, None] * self.unit[:, None, :])
        return np.concatenate([rho, np.sum(self.dipole**2, axis=2)], axis=1)

    def gradients(self, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        by_dipole = (2.0 * beta[:, 4:, None] * self.dipole)[self.center]
        along = np.einsum("pka,pa->pk", by_dipole, self.unit)
        length = np.sum(self.slopes * (beta[:, :4][self.center] + along), axis=1)
        across = by_dipole - along[:, :, None] * self.unit[:, None, :]
        force = length[:, None] * self.unit
        force += np.einsum("pk,pka->pa", self.terms, across) / self.distance[:, None]
        by_position = np.zeros_like(self.batch.positions)
        np.add.at(by_position, self.neighbor, force)
        np.add.at(by_position, self.center, -force)
        by_strain = np.zeros((len(self.batch), 3, 3))
        np.add.at(by_strain, self.batch.owner[self.center], self.vector[:, :, None] * force[:, None, :])
        return by_position, by_strain


def small_config(**sections: object) -> SmaxConfig:
    """One element, few atoms; sections as keywords."""
    base: dict[str, object] = {
        "elements": {"symbols": ["Fe"]},
        "composition": {"mean_atoms": 5.0, "max_atoms": 10},
    }
    return SmaxConfig.of(base | sections)
