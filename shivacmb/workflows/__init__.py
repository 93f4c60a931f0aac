"""Nipype graphs; no numerics."""
