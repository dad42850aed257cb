"""Analysis of molecular-dynamics runs with NumPy: pairs, radial distribution functions, clusters, pictures."""
