"""Heads and microbleeds with known truth."""
