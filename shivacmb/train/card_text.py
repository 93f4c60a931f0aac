"""The model card for people: what ``model.json`` says, as a page of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def card_text(metadata: Mapping[str, Any]) -> str:
    """Write a model card in Markdown.

    Parameters
    ----------
    metadata : mapping
        Content of ``model.json`` without the folds.

    Returns
    -------
    str
    """
    training, metrics = metadata['training'], metadata['metrics']
    recipe, point = training['recipe'], metadata['postprocess']
    lines = [
        f'# {metadata["name"]} {metadata.get("version", "")}'.rstrip(),
        '',
        metadata.get('description', ''),
        '',
        f'**Intended use.** {metadata.get("intended_use", "")}',
        '',
        f'**Licence.** {metadata.get("license") or "not stated"}',
        '',
        '## Data',
        '',
        '| dataset | people | scans | contrasts | without lesions | lesions |',
        '|---|---|---|---|---|---|',
    ]
    for name, own in training['data'].items():
        lesions = ', '.join(f'{count} {label}' for label, count in own['lesions'].items())
        contrasts = ', '.join(f'{count} {item}' for item, count in own['contrasts'].items())
        lines.append(
            f'| {name} | {own["people"]} | {own["scans"]} | {contrasts} | '
            f'{own["scans_without_lesions"]} | {lesions} |'
        )
    moves = recipe['augmentation']
    inputs = '; '.join(
        f'{item["name"]} ({" or ".join(item["contrasts"])})' for item in metadata['inputs']
    )
    lines += [
        '',
        f'Scans left out of each fold: {", ".join(map(str, training["fold_sizes"]))}. All scans '
        'of a person are in the same fold.',
        '',
        '## Training',
        '',
        f'- input: {inputs}; box of {"x".join(map(str, metadata["grid"]["shape"]))} voxels',
        f'- network: {", ".join(f"{k} {v}" for k, v in metadata["architecture"].items())}',
        f'- {_steps(recipe)}',
        f'- loss {recipe["loss"]}, {training["optimizer"]}',
        *(f'- fold {fold}: {_rates(own)}' for fold, own in enumerate(recipe['rates'])),
        f'- flip {"yes" if moves["flip"] else "no"}, shifts to {moves["shift_voxels"]} voxels, '
        f'rotations to {moves["rotation_degrees"]:g} degrees, intensity curves '
        f'{moves["curves"]}',
        f'- arithmetic {recipe["precision"]}, seed {recipe["seed"]}, start: {training["start"]}',
        f'- {training["minutes"]:g} minutes in all, finished {training["finished"]}, '
        f'{training["software"]}',
    ]
    for machine in training['machines']:
        lines.append(
            f'- machine: {machine["device"]}; {machine["cpu"]}, {machine["cpu_cores"]} cores; '
            f'{machine["backend"]}, Keras {machine["keras"]}'
        )
    lines += [
        '',
        '## Numbers',
        '',
        f'Operating point: threshold {point["threshold"]:g}, at least {point["min_voxels"]} '
        f'voxels. Class {metrics["class"]}, soft Dice {_number(metrics["soft_dice"])}.',
        '',
        '| scans | n | lesions | sensitivity | precision | false positives per scan | F1 |',
        '|---|---|---|---|---|---|---|',
        _row('all', metrics['unseen']),
    ]
    lines += [
        _row(f'left out of fold {fold}', own) for fold, own in enumerate(metrics['unseen_by_fold'])
    ]
    lines += ['', f'{metrics["note"][0].upper()}{metrics["note"][1:]}.', '']
    lines += ['![learning curves](learning_curves.png)', '']
    return '\n'.join(lines)


def _steps(recipe: Mapping[str, Any]) -> str:
    size = 'whole boxes' if recipe['patch'] is None else f'patches of {recipe["patch"]} voxels'
    steps = ', '.join(map(str, recipe['steps']))
    return f'steps of the folds: {steps}; {recipe["batch"]} {size} per step'


def _rates(rates: Sequence[Mapping[str, float]]) -> str:
    return '; '.join(
        f'from step {own["from_step"]} learning rate {own["low"]:g} to {own["high"]:g} in cycles '
        f'of {own["cycle"]} steps, times {own["decay"]:.6g} each step'
        for own in rates
    )


def _number(value: float | None) -> str:
    return 'n/a' if value is None else f'{value:g}'


def _row(name: str, own: Mapping[str, Any]) -> str:
    cells = [own['scans'], own['lesions'], own['sensitivity'], own['precision'],
             own['false_positives_per_scan'], own['f1']]  # fmt: skip
    return f'| {name} | ' + ' | '.join(_number(cell) for cell in cells) + ' |'
