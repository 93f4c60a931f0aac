"""Truths whose prediction is missing, counted as if it had found nothing."""

from __future__ import annotations

from dataclasses import replace

from shivacmb.evaluate.lists import Listed, plain
from shivacmb.evaluate.pairs import Pair, Pairing, Source


def count_as_empty(pairing: Pairing) -> tuple[Pairing, tuple[Source, ...]]:
    """Give truths without a prediction a prediction without lesions.

    Parameters
    ----------
    pairing : Pairing
        Of :func:`shivacmb.evaluate.pairs.pair_up`.

    Returns
    -------
    pairing : Pairing
        A truth stays without partner where a prediction of the same participant, and session
        where both name one, has no truth: that may be its own under another name, and what it
        found is not nothing.
    counted : tuple of Source
        The truths that have a stand-in.
    """
    counted = tuple(
        truth
        for truth in pairing.only_truth
        if not any(_may_belong(truth, pred) for pred in pairing.only_pred)
    )
    added = tuple(
        Pair(
            replace(
                source,
                kind='points',
                listed=Listed(source.participant, source.session, 0),
                stand_in=True,
            ),
            source,
        )
        for source in counted
    )
    pairs = tuple(sorted((*pairing.pairs, *added), key=lambda pair: pair.scan))
    left = tuple(source for source in pairing.only_truth if source not in counted)
    return Pairing(pairs, pairing.only_pred, left), counted


def _may_belong(truth: Source, pred: Source) -> bool:
    sessions = {plain(source.session) for source in (truth, pred) if source.session}
    return plain(truth.participant) == plain(pred.participant) and len(sessions) < 2
