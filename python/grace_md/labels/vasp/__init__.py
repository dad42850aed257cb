"""VASP: inputs with the settings of the reference data, and results with a check of convergence."""
