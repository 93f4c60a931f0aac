"""Nipype nodes, each a thin cover over one pure function."""
