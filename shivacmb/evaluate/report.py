"""Write what came out: tables, JSON, pictures, page, PDF, the paper's table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from shivacmb import __version__
from shivacmb.bids import write_text
from shivacmb.evaluate import figures, gallery, outputs, page, table3
from shivacmb.evaluate.session import Options, Part, curve_voxels, cut_at, tables

_SOFTWARE = 'shivacmb'
_HEADLINE = ('sensitivity', 'precision', 'f1_count', 'f1_harmonic', 'fp')


def write_all(parts: Sequence[Part], options: Options, command: str) -> Path:
    """Write everything and return the page.

    Parameters
    ----------
    parts : sequence of Part
        One per class.
    options : Options
        As they were given.
    command : str
        What makes these files again; stands on the page and in the JSON.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    folder = options.out_dir
    earlier = _earlier_files(folder)  # before evaluation.json is replaced
    lines = tables(parts, options)
    outputs.write_tables(folder, lines)
    files = [f'{name}.tsv' for name, rows in lines.items() if rows]
    for part in parts:
        files += _write_table3(part, options, several=len(parts) > 1)
    definitions = outputs.definitions([part.result for part in parts])
    pictures: list[Path] = []
    contents = []
    for part in parts:  # before the JSON: the pictures may add warnings
        content, drawn = _part_content(part, options, several=len(parts) > 1)
        contents.append(content)
        pictures += drawn
    written = [*files, *(path.relative_to(folder).as_posix() for path in pictures)]
    if options.pdf != 'none':
        written.append('report.pdf')
    outputs.write_json(
        folder,
        {
            'software': _SOFTWARE, 'version': __version__, 'command': command,
            'settings': _settings(options, parts), 'definitions': definitions,
            'best': {part.result.plan.class_name: part.best for part in parts if part.best},
            'warnings': _warnings(parts), 'files': written,
        },
        lines,
    )  # fmt: skip
    target = page.write_page(
        folder / 'report.html',
        {
            'title': options.title, 'version': __version__, 'warnings': _warnings(parts),
            'parts': contents, 'definitions': definitions, 'draws': options.draws,
            'missing': _missing(parts), 'files': [*files, 'evaluation.json'],
            'command': command, 'first_name': options.names[0],
            'second_name': options.names[1],
        },
    )  # fmt: skip
    if options.pdf != 'none':
        page.write_pdf(
            target, pictures, summary_text(parts, options), browser=options.pdf == 'auto'
        )
    for name in earlier - set(written):
        path = folder / name
        path.unlink(missing_ok=True)
        if path.suffix == '.tsv':  # with its dictionary
            path.with_suffix('.json').unlink(missing_ok=True)
    return target


def _earlier_files(folder: Path) -> set[str]:
    """What an earlier evaluation says that it wrote: a folder may hold others' files, too."""
    try:
        content = json.loads((folder / 'evaluation.json').read_text(encoding='utf-8'))
        names = map(str, content['files']) if content['software'] == _SOFTWARE else ()
        # the file may have been edited, and nothing outside the folder is ever ours
        inside = folder.resolve()
        return {
            name
            for name in names
            if (folder / name).is_file() and (folder / name).resolve().is_relative_to(inside)
        }
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _settings(options: Options, parts: Sequence[Part]) -> dict[str, Any]:
    """Settings without folders, so that the same data elsewhere give the same file.

    Threshold and smallest size are those that took effect, null where no probability map was cut.
    """
    left_out = ('predictions', 'truth', 'out_dir', 'compare', 'bids_dir', 'processes')
    settings = {
        item.name: getattr(options, item.name)
        for item in fields(options)
        if item.name not in left_out
    }
    cuts = [cut for part in parts if (cut := cut_at(part)) is not None]
    settings['threshold'], settings['min_size'] = cuts[0] if cuts else (None, None)
    return settings


def _cut_text(part: Part) -> str:
    cut = cut_at(part)
    if cut is None:
        return ''
    least = f'{cut[1]} voxel' + ('s' if cut[1] > 1 else '')
    return (
        f'Probability maps were cut into clusters of at least {least} with a probability of at '
        f'least {cut[0]:g}.'
    )


def _warnings(parts: Sequence[Part]) -> list[str]:
    found = [text for part in parts for text in part.warnings]
    for part in parts:
        subjects = part.result.bootstrap.subjects
        if subjects < 10:
            found.append(
                f'{part.result.plan.class_name}: {subjects} participant(s) only; intervals drawn '
                'from so few are too narrow'
            )
    return found


def _write_table3(part: Part, options: Options, *, several: bool) -> list[str]:
    """``table3.md`` and ``table3.tex``, with the class in the name when there are several."""
    ending = f'_{part.result.plan.class_name}' if several else ''
    written = []
    for extension, make in (('md', table3.markdown), ('tex', table3.latex)):
        name = f'table3{ending}.{extension}'
        text = make(part.result, options.table_by)
        if text:
            write_text(options.out_dir / name, text)
            written.append(name)
    return written


def _part_content(
    part: Part, options: Options, *, several: bool
) -> tuple[dict[str, Any], list[Path]]:
    result = part.result
    name = result.plan.class_name
    folder = options.out_dir / 'figures'
    if several:
        folder /= name
    swept = part.sweep.get('all') or part.sweep.get('report') or []
    drawn = figures.draw_all(folder, result, swept, curve_voxels(result))
    galleries = _galleries(part, options, folder)
    truth, predicted = result.counts
    rows = table3.table_rows(result, options.table_by)
    content = {
        'class_name': name,
        'scans': len(result.scans),
        'participants': result.bootstrap.subjects,
        'n_truth': int(truth.sum()),
        'n_pred': int(predicted.sum()),
        'unpaired': len(part.pairing.only_pred) + len(part.pairing.only_truth),
        'cut': _cut_text(part),
        'rules': page.rule_rows(result),
        'table3': page.table_content(rows),
        'table3_note': table3.note(result) if rows else '',
        'best': part.best.get('text', ''),
        'plots': [
            {'title': title, 'alt': said, 'src': _source(path, options)}
            for title, said, path in drawn
        ],
        'figures': [
            {
                'name': figure.name.replace('_', ' '),
                **page.with_interval(figure),
                'p': _p(figure.p),
                'n': figure.n,
            }
            for figure in [*result.patients, *result.agreement]
        ],
        'comparison': _comparison(part),
        'galleries': [
            {'title': title, 'alt': title, 'src': _source(path, options)}
            for title, path in galleries
        ],
    }
    return content, [path for _, _, path in drawn] + [path for _, path in galleries]


def _p(value: float) -> str:
    if math.isnan(value):
        return ''
    return '< 0.001' if value < 0.001 else f'{value:.3f}'


def _source(path: Path, options: Options) -> str:
    from urllib.parse import quote

    return quote(path.relative_to(options.out_dir).as_posix())


def _galleries(part: Part, options: Options, folder: Path) -> list[tuple[str, Path]]:
    found = []
    rule = part.result.plan.main_rule
    for kind, title in (
        ('misses', 'Missed lesions, the largest first'),
        ('false-positives', 'False positives, the most probable first'),
    ):
        shown = gallery.cases(part.result, kind) if options.gallery else []
        shown, problems = gallery.drop_unreadable(shown)
        part.warnings += [said for said in problems if said not in part.warnings]
        if shown:
            heading = f'{title} (rule {rule.name if rule else ""})'
            found.append((title, gallery.draw_gallery(shown, heading, folder / f'{kind}.png')))
    return found


def _comparison(part: Part) -> list[dict[str, Any]]:
    lines = []
    for rule, zero_rule, measure, paired in part.comparison:
        wanted = (*_HEADLINE, 'f1_pooled')
        own = {item.name: item.zero_rules[0] for item in part.result.plan.rules}[rule]
        if measure not in wanted or zero_rule not in (own, 'n/a'):
            continue
        interval = page.between(paired.low, paired.high)
        lines.append({
            'rule': rule, 'measure': measure, 'first': page.text(paired.first),
            'second': page.text(paired.second), 'value': page.text(paired.difference),
            'interval': interval if paired.low == paired.low else '',
            'signed': _p(paired.signed_rank_p),
            'ranks': _p(paired.rank_sum_p), 'n': paired.scans,
            'participants': paired.subjects,
        })  # fmt: skip
    return lines


def _missing(parts: Sequence[Part]) -> list[dict[str, str]]:
    return [
        {'scan': source.scan, 'what': f'{part.result.plan.class_name}: {what}'}
        for part in parts
        for sources, what in (
            (part.pairing.only_truth, 'prediction'),
            (part.pairing.only_pred, 'truth'),
        )
        for source in sources
    ]


def summary_text(parts: Sequence[Part], options: Options) -> str:
    """Short summary for the terminal and the first sheet of a PDF made without a browser."""
    lines = [options.title, '']
    for part in parts:
        result = part.result
        truth, predicted = result.counts
        lines.append(
            f'{result.plan.class_name}: {len(result.scans)} scans of '
            f'{result.bootstrap.subjects} participants, {truth.sum()} lesions, '
            f'{predicted.sum()} predictions'
        )
        rows = page.rule_rows(result)
        if rows:
            head = ('rule', 'empty', 'S mean', 'P mean', 'F1 mean', 'F1 med', 'Magn', 'S pool',
                    'P pool', 'F1 pool', 'F1 harm', 'FP/scan')  # fmt: skip
            lines.append(
                '  '.join([f'{head[0]:<14}', f'{head[1]:<6}', *(f'{h:>7}' for h in head[2:])])
            )
            lines += [
                '  '.join([
                    f'{row["rule"]:<14}', f'{row["zero_rule"]:<6}',
                    *(f'{cell["value"]:>7}' for cell in row['cells']),
                ])
                for row in rows
            ]  # fmt: skip
        lines += [
            f'{figure.name:<28} {page.text(figure.value)}  '
            f'[{page.text(figure.low)}, {page.text(figure.high)}]'
            for figure in [*result.patients, *result.agreement]
            if figure.name in _PRINTED
        ]
        if part.best:
            lines.append(str(part.best['text']))
        lines.append('')
    return '\n'.join(lines).rstrip() + '\n'


_PRINTED = (
    'ko_sensitivity', 'ko_specificity', 'ko_accuracy', 'voxel_dice', 'pearson', 'spearman',
    'shiva_classes_accuracy', 'shiva_classes_kappa_linear',
)  # fmt: skip
