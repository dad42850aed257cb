"""Labels for structures: a farm of jobs in a directory, and recipes that compute energies, forces and stresses.

The farm needs nothing but Python, numpy and ASE; a recipe imports its code when it starts to work. Nothing here needs
the compiled core, so that codes which live in another Python (GPAW of Debian, say) run in the same farm.
"""

from __future__ import annotations

from grace_md.labels.farm import Farm, create_farm
from grace_md.labels.records import Label, LabelFailedError
from grace_md.labels.worker import label_jobs

__all__ = ["Farm", "Label", "LabelFailedError", "create_farm", "label_jobs"]
