"""The LAMMPS plugin `graceplugin.so` and how LAMMPS finds it."""
