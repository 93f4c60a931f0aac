"""Run ``python -m shivacmb``."""

from __future__ import annotations

import sys

from shivacmb.cli.main import main

sys.exit(main())
