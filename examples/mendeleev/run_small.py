"""Nine elements, twenty atoms of each, with the starter model: the Mendeleev protocol from Python, in minutes."""

from pathlib import Path

from grace_md.analysis.report import write_report
from grace_md.data import model_path
from grace_md.workflows.quench import mendeleev_settings
from grace_md.workflows.quench_run import prepare_quench, run_quench

folder = Path("mendeleev_small")
settings = mendeleev_settings(["O", "Si", "Al", "Fe", "Ca", "Na", "Mg", "K", "Ti"], per_element=20, steps=8000)
settings.hold_steps = 1000
prepare_quench(settings, folder, model_path("lava9_1l"), force=True)
run_quench(folder, ranks=2)
report = write_report(folder)
for group in report.summary["bonds"]["communities"]:
    print("community:", " ".join(group))
