"""Commands of `grace-md` that are not workflows. Modules here import numpy, ase and the core only inside `run`."""
