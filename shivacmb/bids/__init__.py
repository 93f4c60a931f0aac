"""Find inputs, name outputs, describe datasets."""
