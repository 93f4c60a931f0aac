from __future__ import annotations

import numpy as np
import pytest

from shivacmb.models.unet3d import build_unet3d, stage_filters


def test_filters_of_the_paper() -> None:
    assert stage_filters(10, 7, 1.8) == [10, 18, 32, 58, 105, 189, 340]


@pytest.mark.tensorflow
def test_a_stem_keeps_the_size_and_lets_every_voxel_through() -> None:
    network = build_unet3d((8, 12, 10), filters=8, stages=2, growth=2.0, stem=2)
    zero = np.zeros((1, 8, 12, 10, 1), np.float32)
    rest = np.asarray(network(zero))
    assert rest.shape == (1, 8, 12, 10, 1)
    # the eight places of a voxel within its fold give eight different answers
    answers = []
    for place in np.ndindex(2, 2, 2):
        image = zero.copy()
        image[0, 4 + place[0], 4 + place[1], 4 + place[2], 0] = 1
        answers.append(np.asarray(network(image)) - rest)
    for answer in answers:
        assert np.abs(answer).max() > 0
    for first in range(8):
        for second in range(first):
            assert np.abs(answers[first] - answers[second]).max() > 0


def test_sizes_that_do_not_divide_by_the_stem_are_refused() -> None:
    with pytest.raises(ValueError, match=r'each size of \(9, 8, 8\) must divide by 2'):
        build_unet3d((9, 8, 8), stem=2)
