"""What a person types: parsers, exit codes, progress."""
