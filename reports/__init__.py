"""Reports: plain records of studies and claims made into HTML and PDF, the same bytes for the same records.

``write_study(study, folder)`` and ``write_index(studies, folder, note)`` are the whole of it; the records are in
:mod:`lemmata.reports.record`, the figures in :mod:`lemmata.reports.figures`. Nothing here imports torch.
"""

from .bibliography import known_keys
from .compile import write_index, write_study
from .figures import evidence, literal, render
from .record import Arm, Claim, Figure, MissingSourceError, Point, ReportError, Study, Surface, Table, to_json

__all__ = [
    "Arm",
    "Claim",
    "Figure",
    "MissingSourceError",
    "Point",
    "ReportError",
    "Study",
    "Surface",
    "Table",
    "evidence",
    "known_keys",
    "literal",
    "render",
    "to_json",
    "write_index",
    "write_study",
]
