"""Analysis of runs: pairs with images, radial distribution functions, clusters, communities, pictures, log reader."""

import itertools
import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii

import tolerances
from grace_md.analysis.clusters import BondCounts, bond_counts, bonded_clusters, communities, modularity
from grace_md.analysis.lammps_files import read_data, read_frames, read_thermo, truncate_frames
from grace_md.analysis.pairs import closest_contact, pairs_within
from grace_md.analysis.plots import cluster_histogram
from grace_md.analysis.rdf import partial_rdfs
from grace_md.analysis.render import element_colors, render_atoms

CELLS = {
    "thin slab": np.diag([11.0, 9.0, 2.1]),
    "triclinic": np.array([[6.0, 0.0, 0.0], [2.5, 5.0, 0.0], [-1.8, 1.2, 3.1]]),
    "left-handed": np.array([[0.0, 6.0, 0.0], [5.0, 0.0, 0.0], [0.0, 1.0, 4.0]]),
}


def brute_force_pairs(positions, cell, cutoff):
    """Sorted distances of all directed pairs, from a plain loop over images."""
    repeats = np.ceil(cutoff * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int) + 1
    wrapped = (positions @ np.linalg.inv(cell)) % 1.0 @ cell
    found = []
    for shift in itertools.product(*(range(-n, n + 1) for n in repeats)):
        difference = wrapped[None, :, :] + np.array(shift) @ cell - wrapped[:, None, :]
        distance = np.linalg.norm(difference, axis=2)
        if shift == (0, 0, 0):
            np.fill_diagonal(distance, np.inf)
        i, j = np.nonzero(distance < cutoff)
        found += list(zip(i, j, distance[i, j], strict=True))
    return sorted(found)


@pytest.mark.parametrize("name", CELLS)
def test_pairs_against_brute_force(name):
    cell = CELLS[name]
    positions = np.random.default_rng(7).uniform(-8.0, 8.0, (17, 3))
    cutoff = 4.7  # longer than an edge of each cell
    i, j, distance = pairs_within(positions, cell, cutoff)
    expected = brute_force_pairs(positions, cell, cutoff)
    order = np.lexsort((distance, j, i))
    assert len(distance) == len(expected) > 17
    assert [(a, b) for a, b, _ in expected] == list(zip(i[order].tolist(), j[order].tolist(), strict=True))
    tolerances.assert_close(distance[order], [d for _, _, d in expected], atol=tolerances.NEIGHBOR_VECTOR)


def test_pairs_of_many_points_use_the_same_bins():
    # More points than the switch to finer bins: the count of a lattice is known.
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(12)
    assert len(atoms) > 5000
    _, _, distance = pairs_within(atoms.positions, atoms.cell.array, 3.0)
    assert len(distance) == 12 * len(atoms)


def test_pairs_reject_bad_input():
    with pytest.raises(ValueError, match="zero volume"):
        pairs_within(np.zeros((2, 3)), np.diag([1.0, 1.0, 0.0]), 2.0)
    with pytest.raises(ValueError, match="finite"):
        pairs_within(np.array([[np.nan, 0.0, 0.0]]), np.eye(3), 2.0)


def test_closest_contact_names_the_pair():
    atoms = Atoms("OSiK", [[0.2, 0, 0], [9.9, 0, 0], [5, 5, 5]], cell=10.0 * np.eye(3), pbc=True)
    ratio, pair, distance = closest_contact(atoms.positions, atoms.cell.array, covalent_radii[atoms.numbers])
    assert set(pair) == {0, 1}
    assert distance == pytest.approx(0.3)
    assert ratio == pytest.approx(0.3 / (covalent_radii[8] + covalent_radii[14]))


def test_rdf_of_an_ideal_gas_is_one_in_a_thin_cell():
    random = np.random.default_rng(11)
    cell = np.diag([30.0, 28.0, 4.0])  # thinner than the range: self images count too
    frames = [Atoms("O600Si300", random.random((900, 3)) @ cell, cell=cell, pbc=True) for _ in range(3)]
    rdfs = partial_rdfs(frames, r_max=7.0, n_bins=35)
    assert set(rdfs) == {("O", "O"), ("O", "Si"), ("Si", "Si")}
    for rdf in rdfs.values():
        # An atom meets its own image at exactly 4 A, which no gas would do: that bin is left out.
        far = (rdf.r > 2.0) & (np.abs(rdf.r - 4.0) > 0.2)
        noise = 5.0 / np.sqrt(rdf.n_pairs[far])
        assert np.all(np.abs(rdf.g[far] - 1.0) <= noise + 0.02)


def test_rdf_of_a_crystal_and_of_its_supercell_agree():
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.rattle(0.05, seed=1)
    one = partial_rdfs([atoms], [("Na", "Cl"), ("Na", "Na")], r_max=9.0)
    many = partial_rdfs([atoms.repeat((3, 2, 4))], [("Na", "Cl"), ("Na", "Na")], r_max=9.0)
    for pair, rdf in one.items():
        tolerances.assert_close(rdf.counts.sum(), many[pair].counts.sum(), atol=1e-9, what=str(pair))
    assert one["Na", "Cl"].coordination(3.4) == pytest.approx(6.0)
    assert one["Na", "Na"].coordination(4.6) == pytest.approx(12.0)


def test_rdf_peak_and_minimum():
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat(4)
    frames = []
    for seed in range(5):
        frame = atoms.copy()
        frame.rattle(0.1, seed=seed)
        frames.append(frame)
    rdf = partial_rdfs(frames, [("Na", "Cl")])["Na", "Cl"]
    position, height = rdf.first_peak()
    assert abs(position - 2.82) <= 0.03
    assert height > 3.0
    assert 3.1 < rdf.first_minimum() < 4.2
    assert rdf.coordination(rdf.first_minimum()) == pytest.approx(6.0, abs=0.05)


def test_clusters_are_connected_through_the_boundary():
    #        two dimers, one of them across the boundary, and a single atom; O is no member
    atoms = Atoms(
        "FeSiFeFeFeO",
        [[0.3, 5, 5], [9.2, 5, 5], [4.0, 2, 2], [4.0, 4.3, 2], [7, 8, 8], [0.3, 5, 6]],
        cell=10.0 * np.eye(3),
        pbc=True,
    )
    found = bonded_clusters(atoms, {("Fe", "Si"): 2.6, ("Fe", "Fe"): 2.5})
    assert [cluster.tolist() for cluster in found] == [[0, 1], [2, 3], [4]]
    assert bonded_clusters(atoms, {("Na", "K"): 3.0}) == []


def test_bond_counts_of_rocksalt():
    atoms = bulk("MgO", "rocksalt", a=4.21).repeat(2)
    bonds = bond_counts([atoms], ["Mg", "O", "Fe"])
    expected = np.array([[0, 48, 0], [48, 0, 0], [0, 0, 0]])
    # 1.25 (1.41 + 0.66) = 2.59 A holds the six Mg-O bonds at 2.105 A; Mg-Mg at 2.98 A lies within 1.25 x 2.82 A.
    assert bonds.counts[0, 1] == expected[0, 1]
    assert bonds.counts[0, 0] == 8 * 12 / 2
    assert bonds.counts[1, 1] == 0
    tolerances.assert_close(bonds.counts, bonds.counts.T, atol=0.0)
    assert np.isnan(bonds.enrichment()[2]).all()


def test_enrichment_of_random_pairing_is_one():
    degree = np.array([3.0, 5.0, 2.0])
    adjacency = np.outer(degree, degree)
    counts = adjacency - 0.5 * np.diag(np.diag(adjacency))
    bonds = BondCounts(["A", "B", "C"], counts)
    tolerances.assert_close(bonds.enrichment(), np.ones((3, 3)), atol=1e-12)
    assert bonds.group_enrichment(["A"], ["B", "C"]) == pytest.approx(1.0)


def adjusted_rand(first, second):
    """Adjusted Rand index of two partitions: 1 if equal up to names, about 0 if unrelated."""
    table = np.array([[np.sum((first == a) & (second == b)) for b in np.unique(second)] for a in np.unique(first)])

    def couples(n):
        return (n * (n - 1) / 2).sum()

    rows, columns, total = couples(table.sum(axis=1)), couples(table.sum(axis=0)), couples(np.array([table.sum()]))
    expected = rows * columns / total
    return (couples(table) - expected) / (0.5 * (rows + columns) - expected)


@pytest.mark.parametrize("seed", range(5))
def test_planted_partition_is_found(seed):
    random = np.random.default_rng(seed)
    planted = np.repeat(np.arange(4), [30, 24, 22, 18])  # 94 elements in four blocks
    shuffled = random.permutation(planted)
    mean = np.where(shuffled[:, None] == shuffled[None, :], 12.0, 4.0)
    upper = np.triu(random.poisson(mean), 1)
    weights = (upper + upper.T).astype(float)
    found = communities(weights, seed=seed)
    assert adjusted_rand(shuffled, found) == 1.0
    assert modularity(weights, found) == pytest.approx(modularity(weights, shuffled))
    assert adjusted_rand(shuffled, random.permutation(found)) < 0.2  # the measure can fail


def test_communities_of_a_graph_without_structure():
    assert set(communities(np.zeros((3, 3)))) == {0, 1, 2}
    assert len(set(communities(np.ones((6, 6)) - np.eye(6)))) == 1
    with pytest.raises(ValueError, match="symmetric"):
        communities(np.array([[0.0, 1.0], [2.0, 0.0]]))


def test_rendered_atom_has_its_color_and_hides_what_is_behind():
    turn = np.eye(3)  # x right, y up, z to the viewer
    cell = 6.0 * np.eye(3)
    atoms = Atoms("FeO", [[3, 3, 5], [3, 3, 1]], cell=cell, pbc=True)
    colors = {"Fe": (0.0, 0.0, 1.0), "O": (1.0, 0.0, 0.0)}
    picture = render_atoms(atoms, colors, radii=np.array([1.0, 1.0]), size=120, rotation=turn, show_cell=False)
    assert picture.shape == (120, 120, 3)
    assert picture.min() >= 0.0
    assert picture.max() <= 1.0
    middle = picture[60, 60]
    assert middle[2] > 0.5 > middle[0]
    assert np.all(picture[2, 2] == 1.0)
    seen_from_below = render_atoms(
        atoms, colors, radii=np.array([1.0, 1.0]), size=120, rotation=np.diag([1.0, -1.0, -1.0]), show_cell=False
    )
    assert seen_from_below[60, 60, 0] > 0.5 > seen_from_below[60, 60, 2]
    assert all(0.0 <= value <= 1.0 for rgb in element_colors(["O", "Au", "Fe"]).values() for value in rgb)


def test_cluster_size_classes_hold_every_atom_once():
    sizes = [1, 1, 2, 3, 4, 5, 8, 9, 16, 17, 76]
    names, atoms, counts = cluster_histogram(sizes)
    assert names == ["1", "2", "3–4", "5–8", "9–16", "17–32", "33–64", "65–128"]
    assert sum(atoms) == sum(sizes)
    assert counts == [2, 1, 2, 2, 2, 1, 0, 1]
    assert cluster_histogram([3, 3, 7]) == (["3", "7"], [6, 7], [2, 1])


LOG = """\
Step Temp Press
0 9.0 9.0
10 9.0 9.0
Loop time of 1 on 1 procs
== quench begins ==
   Step          Temp          Press
         0   5000              1.0
WARNING: something in between
        10   4990              2.0
Loop time of 1 on 1 procs
   Step          Temp          Press
        10   4991              3.0
        20   4980
"""


def test_thermo_reader_keeps_the_last_line_of_a_step(tmp_path):
    log = tmp_path / "log.lava"
    log.write_text(LOG)
    thermo = read_thermo([log], start_mark="== quench begins ==")
    assert thermo["Step"].tolist() == [0.0, 10.0]
    assert thermo["Temp"].tolist() == [5000.0, 4991.0]
    assert read_thermo([log])["Temp"].tolist() == [5000.0, 4991.0]
    assert read_thermo([log], start_mark="never") == {}


FRAME = """\
ITEM: TIMESTEP
{step}
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
1.0 5.0
0.0 6.0
0.0 7.0
ITEM: ATOMS id element x y z
1 O 2.0 3.0 4.0
2 Si 4.0 5.0 6.0
"""


def test_frame_reader_ignores_a_torn_frame(tmp_path):
    dump = tmp_path / "trajectory.lammpstrj"
    dump.write_text(FRAME.format(step=0) + FRAME.format(step=10) + FRAME.format(step=20)[:-9])
    frames = read_frames(dump)
    assert [step for step, _ in frames] == [0, 10]
    atoms = frames[0][1]
    assert atoms.get_chemical_symbols() == ["O", "Si"]
    tolerances.assert_close(atoms.positions, [[1.0, 3.0, 4.0], [3.0, 5.0, 6.0]], atol=0.0)
    tolerances.assert_close(atoms.cell.lengths(), [4.0, 6.0, 7.0], atol=0.0)
    truncate_frames(dump, 0)
    assert dump.read_text() == FRAME.format(step=0)


def test_data_reader_needs_all_atoms(tmp_path):
    path = tmp_path / "final.data"
    path.write_text(
        "text\n\n2 atoms\n1 atom types\n0 2 xlo xhi\n0 2 ylo yhi\n0 2 zlo zhi\n\nAtoms # atomic\n\n1 1 0 0 1\n"
    )
    with pytest.raises(ValueError, match="1 of 2 atoms"):
        read_data(path, ["O"])


def test_checks_fail_on_nan():
    # A run whose mean temperature or contact is NaN must not pass.
    from grace_md.analysis.report import _checks

    bonds = BondCounts(["O", "Si"], np.zeros((2, 2)))
    summary = {
        "last_tenth": dict.fromkeys(
            ["temperature_K", "target_temperature_K", "pressure_GPa", "target_pressure_GPa"], float("nan")
        ),
        "closest_contact": {"ratio_to_covalent_radii": float("nan")},
        "steps": 10,
        "n_atoms": 2,
    }
    settings = {"system": "lava", "steps": 10, "hold_steps": 0, "composition": {"O": 1, "Si": 1}}
    checks = {check.name: check for check in _checks(settings, {"status": "complete"}, summary, bonds, {})}
    for name in ("closest contact of the run", "temperature, last tenth", "O-cation bonds over random"):
        assert checks[name].passed is False, json.dumps([check.line() for check in checks.values()])
    assert checks["Si-O first peak"].passed is None
