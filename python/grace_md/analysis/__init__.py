"""Analysis of molecular-dynamics runs with NumPy: pairs, radial distribution functions, clusters, pictures.

``report.write_report`` makes everything for a quench; the other modules work on any ``ase.Atoms``.
"""
