from __future__ import annotations

import numpy as np
import pytest

from shivacmb.simulate import mni152


@pytest.mark.slow
def test_the_files_are_what_nilearn_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = mni152.read_mni152()
    # the files are not there: nilearn is asked
    monkeypatch.setattr(mni152, 'FOLDER', 'elsewhere')
    theirs = mni152.read_mni152()
    for name in ('affine', 'grey', 'white', 'mask'):
        ours = getattr(maps, name)
        assert ours.dtype == getattr(theirs, name).dtype
        np.testing.assert_array_equal(ours, getattr(theirs, name), err_msg=name)


def test_the_maps_are_those_of_a_brain() -> None:
    maps = mni152.read_mni152()
    assert maps.grey.max() == maps.white.max() == 1.0
    # of the template's 1.9 l of brain
    assert 1.7e6 < maps.mask.sum() < 2.1e6
    middle = np.linalg.inv(maps.affine) @ (0.0, -20.0, 10.0, 1.0)
    assert maps.mask[tuple(middle[:3].round().astype(int))]
