from __future__ import annotations

import struct

import nibabel as nib
import numpy as np
import pytest

from shivacmb.exceptions import OutputError
from shivacmb.reports import write_figures
from shivacmb.reports.canvas import LESION, Canvas, rgb
from shivacmb.reports.closeups import FIELD_MM, LIMIT, draw_closeups
from shivacmb.reports.overview import choose_slices, place_words
from shivacmb.reports.views import AXIAL, turn_to_ras


def _pixels(path):
    from PIL import Image

    return np.asarray(Image.open(path).convert('RGB'))


def _chunks(data):
    at, names = 8, []
    while at < len(data):
        (length,) = struct.unpack('>I', data[at : at + 4])
        names.append(data[at + 4 : at + 8].decode())
        at += 12 + length
    return names


def _write(head, folder, **changed):
    values = {
        'image': head.image,
        'labels': head.labels,
        'mask': head.mask,
        'box': head.box,
        'lesions': head.lesions,
        'affine': head.affine,
    } | changed
    return write_figures(
        **values,
        overview_path=folder / 'a' / 'overview.png',
        lesions_path=folder / 'a' / 'lesions.png',
        title='sub-01',
    )


def test_two_pictures_the_same_on_every_run(head, tmp_path):
    first = [path.read_bytes() for path in _write(head, tmp_path / '1')]
    second = [path.read_bytes() for path in _write(head, tmp_path / '2')]
    assert first == second
    assert [set(_chunks(data)) for data in first] == [{'IHDR', 'IDAT', 'IEND'}] * 2
    assert sorted(path.name for path in (tmp_path / '1' / 'a').iterdir()) == [
        'lesions.png',
        'overview.png',
    ]


def test_las_and_ras_give_the_same_pictures(head, tmp_path):
    plain = _write(head, tmp_path / 'ras', box=None)
    flip = np.array([[0, -1], [1, 1], [2, 1]])
    turned = {
        name: nib.orientations.apply_orientation(getattr(head, name), flip)
        for name in ('image', 'labels', 'mask')
    }
    affine = head.affine @ nib.orientations.inv_ornt_aff(flip, head.image.shape)
    assert nib.aff2axcodes(affine) == ('L', 'A', 'S')
    flipped = _write(head, tmp_path / 'las', box=None, affine=affine, **turned)
    for one, two in zip(plain, flipped, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_no_lesion_no_second_picture(head, tmp_path):
    _write(head, tmp_path)
    assert (tmp_path / 'a' / 'lesions.png').exists()
    written = _write(head, tmp_path, lesions=[], labels=0 * head.labels)
    assert [path.name for path in written] == ['overview.png']
    assert not (tmp_path / 'a' / 'lesions.png').exists()


def test_a_user_s_matplotlib_settings_change_nothing(head, tmp_path):
    import matplotlib as mpl

    plain = _write(head, tmp_path / '1')
    with mpl.rc_context({'text.color': 'red', 'font.size': 30, 'lines.linewidth': 9}):
        changed = _write(head, tmp_path / '2')
    for one, two in zip(plain, changed, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_strange_scans_are_drawn_too(head, tmp_path):
    _write(head, tmp_path, mask=0 * head.labels, box=None, lesions=[])
    _write(head, tmp_path, image=0 * head.image)
    flat = {name: getattr(head, name)[:, :, 20:22] for name in ('image', 'labels', 'mask')}
    _write(head, tmp_path, **flat)


@pytest.mark.parametrize('shape', [(33, 47), (29, 57), (115, 290)])
def test_pixels_arrive_unchanged(shape, tmp_path):
    canvas = Canvas(*shape)
    canvas.pixels[:] = np.random.default_rng(0).random((*shape, 3))
    path = canvas.save(tmp_path / 'a.png')
    np.testing.assert_array_equal(_pixels(path), np.rint(canvas.pixels * 255))


def test_marks_land_on_their_pixels(tmp_path):
    canvas = Canvas(60, 80)
    canvas.dot(20, 30)
    canvas.circle(60, 30, 10)
    seen = _pixels(canvas.save(tmp_path / 'a.png')).astype(int)
    orange = np.abs(seen - np.rint(rgb(LESION) * 255)).sum(axis=2) < 60
    assert orange[29:31, 19:21].all()
    ring = np.argwhere(orange[:, 45:]) + np.array([0.5, 45.5])
    np.testing.assert_allclose(np.hypot(*(ring - [30, 60]).T), 10, atol=1.2)


def test_outline_is_the_inner_edge_of_an_area():
    canvas = Canvas(8, 8)
    area = np.zeros((6, 6), bool)
    area[1:5, 1:5] = True
    canvas.tile(1, 1, np.zeros((6, 6), np.float32), (area, '#ff0000'))
    red = canvas.pixels[1:7, 1:7, 0] == 1
    hollow = area.copy()
    hollow[2:4, 2:4] = False
    np.testing.assert_array_equal(red, hollow)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OutputError, match=r'Cannot write <.*file/a\.png>'):
        Canvas(5, 5).save(tmp_path / 'file' / 'a.png')


def test_every_lesion_is_in_one_slab_and_slices_follow_lesions(head, lesion):
    volumes = turn_to_ras(head.image, head.labels, head.mask, head.affine, head.box)
    outside = lesion(3, 0, 0, 1000)  # far above the brain
    chosen = choose_slices(volumes, [*head.lesions, outside], 6)
    slices = [own for own, _ in chosen]
    assert slices == sorted(slices, reverse=True)
    assert len(slices) == 6
    shown = {found.index: (own, on) for own, inside in chosen for found, on in inside}
    assert sum(len(inside) for _, inside in chosen) == 3
    assert shown[1][1]
    assert head.labels[:, :, shown[1][0]].max() == 1
    assert shown[2][1]
    assert (head.labels[:, :, shown[2][0]] == 2).any()
    assert shown[3] == (slices[0], False)


def test_few_slices_where_the_brain_is_thin(head):
    head.mask[:, :, :20] = False
    head.mask[:, :, 23:] = False
    volumes = turn_to_ras(head.image, head.labels, head.mask, head.affine, None)
    assert [own for own, _ in choose_slices(volumes, [], 24)] == [22, 21, 20]


def test_numbers_stay_apart(head):
    volumes = turn_to_ras(head.image, head.labels, head.mask, head.affine, None)
    view = volumes.frame(AXIAL, 20, volumes.extent(), 3)
    places = place_words([(80.0, 90.0, 8.0), (84.0, 94.0, 8.0), (3.0, 90.0, 8.0)], view)
    for one in range(3):
        assert 0 < places[one][0] < view.width
        for two in range(one):
            assert np.hypot(*np.subtract(places[one], places[two])) > 10


@pytest.mark.parametrize('count', [1, 5, 30, 60, 100])
def test_the_lesion_is_in_the_middle_of_its_tile(head, lesion, count, monkeypatch):
    volumes = turn_to_ras(head.image, head.labels, head.mask, head.affine, None)
    tiles = []
    monkeypatch.setattr(
        Canvas, 'tile', lambda self, top, left, grey, *outlines: tiles.append((left, grey))
    )
    picture = draw_closeups(volumes, [head.lesions[0]] * count, '')
    assert len(tiles) == count * (4 if count <= 24 else 3)
    for left, grey in tiles:
        assert left + grey.shape[1] <= picture.width
        middle = grey.shape[0] // 2
        assert grey[middle, middle] < 0.1
        dark = 6 * grey.shape[0] / FIELD_MM / 2  # the spot is 6 mm wide
        assert grey[middle, round(middle + dark + 6)] > 0.2


def test_no_more_than_the_largest_are_shown(head):
    volumes = turn_to_ras(head.image, head.labels, head.mask, head.affine, None)
    picture = draw_closeups(volumes, [head.lesions[0]] * (LIMIT + 1), '')
    assert any(f'The {LIMIT} largest of {LIMIT + 1}' in word[2] for word in picture.words)
    assert picture.width < 1500
    assert picture.height < 5000
