"""What every column of the tables means; written beside each table as its JSON dictionary."""

from __future__ import annotations

from shivacmb.evaluate.scores import ZERO_RULES

_LOW = 'Lower end of the 95 % interval, subjects drawn with replacement (percentile bootstrap).'
_HIGH = 'Upper end of the same interval.'
_COMMON = {
    'class': 'Kind of lesion.',
    'scan': 'Name of the scan, by the entities that tell scans apart.',
    'participant_id': 'Participant.',
    'session_id': 'Session.',
    'rule': 'Rule set, see definitions in evaluation.json.',
    'zero_rule': 'How scans without lesions or predictions count: ' + ' '.join(
        f'{name}: {text}' for name, text in ZERO_RULES.items()
    ),
    'measure': 'What is measured, see definitions in evaluation.json.',
    'value': 'Its value; n/a where not defined.',
    'low': _LOW,
    'high': _HIGH,
    'n': 'Scans that have a value.',
    'n_pred': 'Predictions that take part under the rule.',
    'n_truth': 'Lesions that take part under the rule.',
    'tp_pred': 'Predictions that are right.',
    'tp_truth': 'Lesions that are found (VALDO: predictions that won a lesion).',
    'fp': 'Predictions that are wrong.',
    'fn': 'Lesions that are missed.',
}  # fmt: skip

MEASURES = {
    'sensitivity': 'Found lesions over lesions.',
    'sensitivity_by_predictions': (
        "TP / (TP + FN) with TP the right predictions: the SHIVA-CMB paper's wording taken "
        'literally.'
    ),
    'precision': 'Right predictions over predictions.',
    'f1_count': '2 TP / (2 TP + FN + FP) with TP the right predictions (SHIVA-CMB paper).',
    'f1_count_truth': '2 TP / (2 TP + FN + FP) with TP the found lesions.',
    'f1_harmonic': 'Harmonic mean of sensitivity and precision.',
    'magnitude': (
        'Square root of sensitivity squared plus precision squared, at most 1.414 (DEEPMIR). '
        'Aggregate of-means is the printed formula on the means over scans; aggregate mean is the '
        "mean of each scan's own, which the paper's table most likely holds."
    ),
    'fp': 'False positives; its mean is the number per scan.',
    'fn': 'Missed lesions.',
    'fp_avg': 'False positives over scans (SHIVA-CMB paper, FPavg).',
    'fp_cmb': 'False positives over lesions (SHIVA-CMB paper, FPcmb).',
    'dice_hits': (
        'Mean Dice over found lesions with the union of the predictions assigned to each; 0 '
        'without a hit, n/a without lesions and where a lesion is a point without extent (VALDO).'
    ),
    'count_difference': 'Absolute difference of the numbers of lesions (VALDO).',
    'volume_difference_mm3': (
        'Absolute difference of the volumes in mm3; predictions from a probability map count by '
        'their probability (VALDO); n/a where a lesion is a point without extent.'
    ),
    'voxel_dice': 'Dice over all voxels where the truth is not empty (Ko 2024).',
    'ko': (
        'Patient level by numbers, each scan taken for a patient: equal is right, fewer is a '
        'miss, more is a false positive (Ko 2024, table S3).'
    ),
    'presence': 'Patient level by whether there is any lesion, each scan taken for a patient.',
    'pearson': 'Correlation of predicted and true numbers.',
    'spearman': 'Rank correlation.',
    'slope': 'Least squares slope of predicted on true numbers.',
    'intercept': 'Its intercept.',
    'bias': 'Mean of predicted minus true number (Bland & Altman).',
    'limit_low': 'Bias minus 1.96 standard deviations.',
    'limit_high': 'Bias plus 1.96 standard deviations.',
    'icc_agreement': 'ICC(A,1): two-way, single rating, absolute agreement (McGraw & Wong 1996).',
    'icc_consistency': 'ICC(C,1): two-way, single rating, consistency.',
    'mean_absolute_difference': 'Mean absolute difference of the numbers.',
    'shiva_classes_accuracy': 'Share of scans in the same class of 0, 1-3, 4-9, 10 and more.',
    'ko_groups_accuracy': 'Share of scans in the same group of 0, 1-10, more than 10.',
    'kappa': "Cohen's kappa; linear and quadratic weigh a disagreement by its distance.",
    'f1_pooled': 'F1 (f1_count) of sums over all scans.',
}

TABLES: dict[str, dict[str, str]] = {
    'pairs': {
        'status': (
            'scored; no_prediction and no_truth: the partner is missing and the scan takes part '
            'in no score; counted_empty: a missing prediction taken as one without lesions.'
        ),
        'predictions': 'File of the predictions.',
        'truth': 'File of the truth.',
        'notes': 'What to keep in mind.',
    },
    'scores': {**MEASURES},
    'counts': {
        'n_truth': 'Lesions, small ones included.',
        'n_pred': 'Predictions, small ones included.',
        'class_truth': 'Class of the true number: 0, 1-3, 4-9, >=10 (SHIVA-CMB).',
        'class_pred': 'Class of the predicted number.',
        'ko_truth': 'Group of the true number: 0, 1-10, >10 (Ko 2024).',
        'ko_pred': 'Group of the predicted number.',
        'ko_verdict': MEASURES['ko'],
        'presence_verdict': MEASURES['presence'],
        'voxel_dice': MEASURES['voxel_dice'],
    },
    'lesions': {
        'side': 'truth or prediction.',
        'index': 'Value in the label map, or number in the list of points.',
        'x': 'Centre, left (-) to right (+), scanner RAS mm.',
        'y': 'Centre, posterior (-) to anterior (+), scanner RAS mm.',
        'z': 'Centre, inferior (-) to superior (+), scanner RAS mm.',
        'volume_mm3': 'Volume on the grid that the lesion came on, also where it was resampled.',
        'diameter_mm': 'Diameter of the ball of the same volume.',
        'voxels': 'Voxels on the grid of the comparison.',
        'probability': 'Largest probability inside, where known.',
        'zone': 'Zone without its side, of the column zone or region of its table, if any.',
        'nearest_mm': 'Distance to the nearest centre of the other side.',
        'RULE': (
            'One column per rule set: hit, miss (lesion not found, or prediction that is wrong), '
            'left_out (too small for the rule).'
        ),
    },
    'summary': {
        'aggregate': (
            'mean or median over scans; pooled: from sums over all scans; of-means: from the '
            'means of sensitivity and precision.'
        ),
        'sd': 'Standard deviation over scans (n - 1), of means.',
        'sem': 'Standard error of the mean as if scans were independent.',
        'q1': 'First quartile, of medians.',
        'q3': 'Third quartile, of medians.',
        'low': (
            f'{_LOW} Of ko and presence by formula (Wilson, or Clopper-Pearson if asked for), '
            'unless a participant has several scans; then by formula only where all or none are '
            'right, with participants for scans.'
        ),
    },
    'agreement': {
        'low': (
            f'{_LOW} By formula, unless a participant has several scans: pearson (Fisher), '
            'slope, intercept, bias and limits (t), icc (F) and accuracy (Wilson; where all or '
            'none are right also then, with participants for scans). n/a for pearson and spearman '
            'of fewer than four participants, for those that are 1 or -1, and for slope and '
            'intercept where pearson is: their intervals would have no width.'
        ),
        'p': (
            'p value where there is a test: t; for spearman of up to nine scans from all pairings '
            '(exact). n/a where a participant has several scans, and instead of t where the '
            'correlation is 1 or -1.'
        ),
    },
    'confusion': {
        'scheme': 'shiva: classes 0, 1-3, 4-9, >=10; ko: groups 0, 1-10, >10.',
        'truth': 'Class by the true number.',
        'predicted': 'Class by the predicted number.',
        'scans': 'Scans.',
    },
    'sizes': {
        'by': 'size: diameter of the ball of equal volume in mm; zone: of the table of lesions.',
        'kind': 'Its class.',
        'measure': 'sensitivity (of lesions) or precision (of predictions) under the main rule.',
        'hits': 'Hits.',
        'total': 'All of that class.',
        'wilson_low': 'Wilson 95 % interval as if lesions were independent.',
        'wilson_high': 'Its upper end.',
    },
    'strata': {
        'stratum': 'What the scans are told apart by.',
        'kind': 'Its value.',
        'scans': 'Scans.',
        'aggregate': 'mean over scans, or pooled.',
    },
    'sweep': {
        'threshold': 'Probability from which a voxel counts.',
        'min_voxels': 'Smallest predicted cluster that counts; the truth stays as the rule says.',
        'fp_per_scan': 'False positives per scan.',
        'f1': 'Pooled F1 (f1_count).',
        'f1_per_scan': 'Mean F1 per scan, zero rules of the SHIVA-CMB paper.',
        'scans': 'Scans with a probability map.',
        'part': 'all; or choose (the point is chosen on these scans) and report (the others).',
    },
    'froc': {
        'fp_per_scan': 'False positives per scan, at most.',
        'sensitivity': 'Best sensitivity of any threshold within that rate.',
        'part': 'all; or choose and report, as in the sweep.',
    },
    'comparison': {
        'first': 'Mean over scans (or pooled value) of the first predictions.',
        'second': 'The same of the second.',
        'difference': 'Second minus first.',
        'signed_rank_p': (
            'Wilcoxon signed-rank test, two-sided, of means over the scans of each participant; '
            'participants with equal scores are left out of it.'
        ),
        'rank_sum_p': (
            'Wilcoxon rank-sum test of the same means, two-sided, as DEEPMIR used it although '
            'the scans are the same.'
        ),
        'participants': 'Participants that these scans are of.',
    },
}


def dictionary(table: str, columns: list[str]) -> dict[str, dict[str, str]]:
    """Data dictionary of a table: each column with its description."""
    known = {**_COMMON, **MEASURES, **TABLES[table]}
    return {
        name: {'Description': known.get(name, known.get('RULE', '') or name)} for name in columns
    }
