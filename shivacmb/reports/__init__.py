"""Pages and figures."""

from __future__ import annotations

from shivacmb.reports.figures import write_figures
from shivacmb.reports.pages import (
    ScanReport,
    figure_paths,
    page_summary,
    write_index,
    write_session_page,
)

__all__ = [
    'ScanReport',
    'figure_paths',
    'page_summary',
    'write_figures',
    'write_index',
    'write_session_page',
]
