"""The paper's simulations as functions and commands.

``composition`` and ``packing`` make the start, ``quench_input`` writes the LAMMPS input, ``quench_run`` runs it in a
folder that can be stopped and resumed, ``quench`` and ``quickstart`` are the commands; ``grace_md.analysis`` makes the
report. Nothing in here is imported before it is used.
"""
