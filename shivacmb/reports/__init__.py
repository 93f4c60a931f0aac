"""Pages and figures."""

from __future__ import annotations

from shivacmb.reports.figures import write_figures

__all__ = ['write_figures']
