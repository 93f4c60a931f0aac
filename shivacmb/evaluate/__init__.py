"""Score predictions under every published rule, on arrays first and files last.

``objects`` turns images and tables into lesions, ``matching`` pairs them, ``scores`` counts,
``rules`` names the published combinations; ``agreement``, ``resampling``, ``sweeps`` and
``strata`` are statistics over scans; ``pairs`` and ``reading`` find and open files; ``evaluation``
puts them together and ``outputs`` writes what came out.
"""

from __future__ import annotations

from shivacmb.evaluate.matching import (
    Match,
    match_nearest,
    match_optimal,
    match_touch,
    match_within,
)
from shivacmb.evaluate.objects import (
    Objects,
    from_labels,
    from_mask,
    from_points,
    from_probability,
)
from shivacmb.evaluate.rules import RuleSet, ScanScore, rule_sets, score_scan

__all__ = [
    'Match',
    'Objects',
    'RuleSet',
    'ScanScore',
    'from_labels',
    'from_mask',
    'from_points',
    'from_probability',
    'match_nearest',
    'match_optimal',
    'match_touch',
    'match_within',
    'rule_sets',
    'score_scan',
]
