"""The quickstart from Python: the same functions that `grace-md quickstart` calls, at a size of your choice."""

from pathlib import Path

from grace_md.analysis.report import write_report
from grace_md.data import model_path
from grace_md.workflows.quench import lava_settings
from grace_md.workflows.quench_run import prepare_quench, run_quench

folder = Path("lava_python")
settings = lava_settings(n_atoms=120, steps=2500)  # Table 8 of the paper, scaled
settings.hold_steps = 600  # at 300 K and 0 GPa
prepare_quench(settings, folder, model_path("lava9_1l"), force=True)
run_quench(folder, ranks=1, threads=2)  # Ctrl-C stops at a restart point; run_quench(folder, resume=True) goes on
report = write_report(folder)
for check in report.checks:
    print(check.line())
print("Si-O bond:", report.summary["rdf"]["Si-O"]["first_peak_A"], "A")
