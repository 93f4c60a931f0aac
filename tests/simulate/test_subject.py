from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from shivacmb.simulate.anatomy import Head
from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.simulate.bids_dataset import Order, write_subject
from shivacmb.simulate.dataset import BRAIN, LESION, MIMIC, random_subject_example
from shivacmb.simulate.dataset_head import carve_sulci
from shivacmb.simulate.scanner import Scanner, Wishes, draw_scanner
from shivacmb.simulate.subject import LesionWishes, Subject, simulate_subject
from shivacmb.simulate.subject_grid import Grid
from shivacmb.simulate.tissues import draw_properties


def small_head() -> Head:
    """A ball of white matter with a rim of cortex, fluid, bone and scalp, and two nuclei."""
    axes = [np.arange(56) - 27.5] * 3
    x, y, z = np.meshgrid(*axes, indexing='ij')
    distance = np.sqrt(x**2 + y**2 + z**2)
    labels = np.zeros(distance.shape, np.uint8)
    for radius, tissue in ((27, Tissue.SKIN), (25.5, Tissue.BONE), (23, Tissue.SULCAL_CSF),
                           (22, Tissue.CORTEX), (18, Tissue.CEREBRAL_WM)):  # fmt: skip
        labels[distance < radius] = tissue
    for side in (-1, 1):
        labels[(x - side * 8) ** 2 + y**2 + z**2 < 9] = Tissue.PALLIDUM
        labels[(x - side * 8) ** 2 + (y - 8) ** 2 + z**2 < 9] = Tissue.PUTAMEN
    affine = np.eye(4)
    affine[:3, 3] = -27.5
    return Head(labels, affine, distance < 22, x < 0)


def scanner(**wishes: object) -> Scanner:
    options = {'voxel_mm': (1.0, 1.0, 1.0), 'field_t': 3.0, 'echoes_s': (0.02,), 'snr': 200.0,
               'orientation': 'axial', 'oblique_deg': 0.0, 'mimics': 0.0, 'artefacts': False,
               **wishes}  # fmt: skip
    return draw_scanner(np.random.default_rng(0), Wishes(**options))


def simulate(count: int = 3, seed: int = 1, how: Scanner | None = None, **options: object):
    rng = np.random.default_rng(seed)
    wishes = LesionWishes(count, (1.8, 2.4), (0.8, 1.2))
    return simulate_subject(rng, small_head(), how or scanner(), wishes, **options)


@pytest.fixture(scope='module')
def subject() -> Subject:
    return simulate()


def test_every_contrast_is_on_the_grid_of_the_truth(subject: Subject) -> None:
    assert set(subject.images) == {'T2starw', 'phase', 'swi', 'Chimap', 'T2w'}
    for arrays in subject.images.values():
        assert [array.shape for array in arrays] == [subject.brain.shape]
        assert all(np.isfinite(array).all() for array in arrays)
    assert subject.labels.shape == subject.brain.shape


def test_any_number_of_threads_gives_the_same_subject() -> None:
    how = scanner(echoes_s=(0.01, 0.02), mimics=1.0)
    one, four = (simulate(6, how=how, workers=workers) for workers in (1, 4))
    np.testing.assert_array_equal(one.labels, four.labels)
    for name, arrays in one.images.items():
        for alone, together in zip(arrays, four.images[name], strict=True):
            # the last bit of a Fourier transform may depend on the number of its threads
            np.testing.assert_allclose(alone, together, atol=2e-5)


def test_lesions_are_dark_on_gradient_echoes_and_bright_in_susceptibility(
    subject: Subject,
) -> None:
    assert len(subject.lesions) == 3
    assert all(item.visible for item in subject.lesions)
    for number, item in enumerate(subject.lesions, start=1):
        where = subject.labels == number
        magnitude = subject.images['T2starw'][0]
        # white matter is 1
        assert magnitude[where].mean() < 0.65
        assert subject.images['swi'][0][where].mean() < magnitude[where].mean() + 0.05
        spot = tuple(np.rint(np.array(item.lesion.centre)).astype(int))
        around = tuple(slice(i - 1, i + 2) for i in spot)
        assert subject.images['Chimap'][0][around].max() > 0.3
        # a spin echo loses only what lies in the voxel itself
        assert subject.images['T2w'][0][where].mean() > magnitude[where].mean()


def test_a_label_is_where_more_than_half_of_the_peak_was_lost() -> None:
    how = scanner(snr=1000.0)
    images = []
    # the noise is drawn after the lesions: the same head with one of almost no susceptibility
    for chi in (1.0, 0.01):
        wishes = LesionWishes(1, (2.2, 2.2), (chi, chi))
        drawn = simulate_subject(
            np.random.default_rng(1), small_head(), how, wishes, contrasts=('T2starw',)
        )
        images.append(drawn.images['T2starw'][0])
        if chi == 1.0:
            marked, item = drawn.labels == 1, drawn.lesions[0]
    lost = images[1] - images[0]
    assert marked.sum() >= 7
    # a voxel in 1000 of noise may lie on the other side of the limit
    assert lost[marked].min() > 0.5 * item.peak - 0.02
    assert lost[~marked].max() < 0.5 * item.peak + 0.02


def test_phase_is_raised_above_the_pole_of_a_lesion() -> None:
    how = scanner(snr=1000.0)
    drawn = simulate(1, how=how)
    item = drawn.lesions[0]
    i, j, k = np.rint(np.array(item.lesion.centre)).astype(int)
    reach = round(1.6 * item.lesion.apparent_radius)
    phase = drawn.images['phase'][0]
    step = np.angle(np.exp(1j * (phase[i, j, k + reach] - phase[i + reach, j, k])))
    # pole raised, equator lowered
    assert step > 0.15


def test_nuclei_with_iron_are_bright_in_susceptibility(subject: Subject) -> None:
    chi = subject.images['Chimap'][0]
    head = small_head()
    offset = np.rint(subject.affine[:3, 3] - head.affine[:3, 3]).astype(int)
    cut = tuple(slice(o, o + n) for o, n in zip(offset, chi.shape, strict=True))
    labels = head.labels[cut]
    quiet = subject.labels == 0
    means = [
        np.median(chi[(labels == tissue) & quiet])
        for tissue in (Tissue.PALLIDUM, Tissue.CORTEX, Tissue.CEREBRAL_WM)
    ]
    assert means[0] > means[1] > means[2]
    assert (chi[~subject.brain] == 0).all()


def test_the_susceptibility_map_holds_all_material_of_overlapping_lobes() -> None:
    how = scanner(voxel_mm=(1.5, 1.0, 2.5))
    drawn = simulate(4, seed=3, how=how, contrasts=('Chimap',))
    # the tissue is drawn before the lesions: it is the same, and the map has no noise
    bare = simulate(0, seed=3, how=how, contrasts=('Chimap',))
    lesions = [item.lesion for item in drawn.lesions]
    assert sum(len(lesion.lobes) > 1 for lesion in lesions) >= 2
    added = drawn.images['Chimap'][0] - bare.images['Chimap'][0]
    material = sum(
        lesion.chi * 4 / 3 * np.pi * lobe[3] ** 3 for lesion in lesions for lobe in lesion.lobes
    )
    assert added.sum() * 1.5 * 1.0 * 2.5 == pytest.approx(material, rel=0.01)


def test_a_later_echo_takes_more_signal_and_more_phase() -> None:
    drawn = simulate(2, how=scanner(echoes_s=(0.01, 0.02, 0.04)))
    first, _, last = drawn.images['T2starw']
    lesions = drawn.labels > 0
    assert last[lesions].mean() < first[lesions].mean()
    assert len(drawn.images['phase']) == 3
    assert len(drawn.images['swi']) == 1


def test_signal_decays_over_the_echoes_as_the_tissue_does() -> None:
    echoes = np.array([0.006, 0.012, 0.018, 0.024])
    how = scanner(echoes_s=tuple(echoes), snr=1000.0, whole_head=True)
    drawn = simulate(0, seed=4, how=how, contrasts=('T2starw',))
    rng = np.random.default_rng(4)
    labels = carve_sulci(rng, small_head().labels, small_head().brain)
    truth = draw_properties(rng, 3.0).r2star
    images = np.stack(drawn.images['T2starw'])
    assert images.shape[1:] == labels.shape
    slopes = -np.polyfit(echoes, np.log(images).reshape(4, -1), 1)[0].reshape(labels.shape)
    for tissue in (Tissue.CEREBRAL_WM, Tissue.CORTEX):
        inside = ndimage.binary_erosion(labels == tissue)
        assert np.median(slopes[inside]) == pytest.approx(truth[tissue], abs=3.0)
    # white matter is 1 at the main echo, and the noise is the same at all
    white = ndimage.binary_erosion(labels == Tissue.CEREBRAL_WM)
    assert np.median(images[2][white]) == pytest.approx(1.0, abs=0.1)
    air = ndimage.distance_transform_edt(labels == 0) > 5
    assert images[0][air].std() == pytest.approx(images[3][air].std(), rel=0.05)


def test_thick_slices_have_the_same_field_of_view_and_lose_contrast() -> None:
    thin, thick = simulate(1), simulate(1, how=scanner(voxel_mm=(1.0, 1.0, 4.0)))
    extent = [s.brain.shape[2] * abs(s.affine[2, 2]) for s in (thin, thick)]
    assert extent[0] == pytest.approx(extent[1], abs=4)
    assert thick.lesions[0].peak < thin.lesions[0].peak + 1e-6


def test_coarse_voxels_are_means_in_plane_too() -> None:
    # stripes of 1 mm along x: points see 0 or 1, means of 2 mm see one half everywhere
    stripes = np.zeros((40, 12, 12), np.float32)
    stripes[::2] = 1
    for axis in range(3):
        volume = np.moveaxis(stripes, 0, axis)
        shape = [4, 4, 4]
        shape[axis] = 15
        for slice_axis in range(3):
            grid = Grid(np.full(3, 2.0), tuple(shape), (2.0, 2.0, 2.0), slice_axis)
            np.testing.assert_allclose(grid.mean(volume), 0.5, atol=1e-6)
    assert Grid(np.zeros(3), (4, 4, 4), (1.2, 0.6, 3.0), 2).parts == (1, 1, 3)
    assert Grid(np.zeros(3), (4, 4, 4), (5.0, 1.3, 3.0), 0).parts == (5, 2, 3)


def test_coarse_voxels_hold_the_signal_of_fine_ones() -> None:
    how = {'snr': 1000.0, 'whole_head': True}
    fine = simulate(0, how=scanner(**how), contrasts=('Chimap',))
    coarse = simulate(0, how=scanner(voxel_mm=(3.0, 3.0, 3.0), **how), contrasts=('Chimap',))
    values = fine.images['Chimap'][0]
    # voxel n of the coarse scan has its middle at voxel 3 n of the fine one
    wanted = ndimage.uniform_filter(values, 3)[::3, ::3, ::3]
    inside = ndimage.binary_erosion(fine.brain, iterations=3)[::3, ::3, ::3]
    assert inside.sum() > 300
    np.testing.assert_allclose(coarse.images['Chimap'][0][inside], wanted[inside], atol=2e-3)


def test_mimics_have_a_row_each_and_calcium_is_diamagnetic() -> None:
    drawn = simulate(1, seed=3, how=scanner(mimics=1.0))
    kinds = {kind for kind, _, _ in drawn.mimics}
    assert kinds & {'sulcal', 'upright', 'medullary', 'surface', 'base'}
    assert 'perivascular_space' in kinds
    for kind, _, chi in drawn.mimics:
        if kind.startswith('calcification'):
            assert chi < 0


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    how = replace(scanner(mimics=0.1), axes='LAS')
    for name, seed in (('one', 5), ('two', 5), ('other', 6)):
        write_subject(tmp_path / name, '001', simulate(2, seed=seed, how=how), how)
    files = sorted(p.relative_to(tmp_path / 'one') for p in (tmp_path / 'one').rglob('*.*'))
    files = [file for file in files if (tmp_path / 'one' / file).is_file()]
    assert len(files) == 10 + 7
    for file in files:
        assert (tmp_path / 'one' / file).read_bytes() == (tmp_path / 'two' / file).read_bytes()
    image = files[[str(f).endswith('_T2starw.nii.gz') for f in files].index(True)]
    one, other = ((tmp_path / name / image).read_bytes() for name in ('one', 'other'))
    assert one != other
    assert not list((tmp_path / 'one').glob('.tmp-*'))


def test_written_images_keep_units_place_and_axes(tmp_path: Path, subject: Subject) -> None:
    how = replace(scanner(), axes='LPS')
    write_subject(tmp_path, '001', subject, how)
    folder, truth = tmp_path / 'sub-001/anat', tmp_path / 'derivatives/truth/sub-001/anat'
    phase = nib.load(folder / 'sub-001_part-phase_T2starw.nii.gz')
    assert ''.join(nib.aff2axcodes(phase.affine)) == 'LPS'
    canonical = nib.as_closest_canonical(phase)
    np.testing.assert_allclose(canonical.affine, subject.affine, atol=1e-4)
    np.testing.assert_allclose(
        canonical.get_fdata(), subject.images['phase'][0], atol=np.pi / 4096
    )
    chi = nib.as_closest_canonical(nib.load(folder / 'sub-001_Chimap.nii.gz')).get_fdata()
    np.testing.assert_allclose(chi, subject.images['Chimap'][0], atol=6e-5)
    labels = nib.load(truth / 'sub-001_desc-CMB_dseg.nii.gz')
    values = np.asarray(labels.dataobj)
    for line in (truth / 'sub-001_desc-CMB_dseg.tsv').read_text().splitlines()[1:]:
        cells = line.split('\t')
        middle = np.argwhere(values == int(cells[0])).mean(axis=0)
        found = nib.affines.apply_affine(labels.affine, middle)
        assert np.linalg.norm(found - [float(cell) for cell in cells[2:5]]) < 1.5
        assert float(cells[10]) == pytest.approx((values == int(cells[0])).sum())


@pytest.mark.parametrize(
    ('largest', 'step'), [(0.7, 1e-4), (3.2767, 1e-4), (8.0, 8 / 32767), (-12.0, 12 / 32767)]
)
def test_no_susceptibility_is_too_large_for_its_file(
    tmp_path: Path, subject: Subject, largest: float, step: float
) -> None:
    chi = np.linspace(0, largest, subject.brain.size).astype(np.float32)
    chi = chi.reshape(subject.brain.shape)
    how = scanner()
    write_subject(tmp_path, '001', replace(subject, images={'Chimap': [chi]}), how)
    image = nib.load(tmp_path / 'sub-001/anat/sub-001_Chimap.nii.gz')
    assert image.dataobj.slope == pytest.approx(step, rel=1e-6)
    found = nib.as_closest_canonical(image).get_fdata()
    np.testing.assert_allclose(found, chi, atol=0.501 * step)


def test_orders_are_checked() -> None:
    from shivacmb.exceptions import UsageError

    for options, message in (
        ({'contrasts': ('T1w',)}, 'contrast T1w is unknown'),
        ({'lesions': (5, 2)}, 'lesions 5-2'),
        ({'chi_ppm': (0.0, 1.0)}, 'susceptibility in ppm 0-1'),
        ({'radius_mm': (1.0, 50.0)}, 'radius in mm 1-50'),
        ({'lesion_free': 2.0}, 'share of lesion-free'),
    ):
        with pytest.raises(UsageError, match=message):
            Order(**options)


def test_a_subject_becomes_an_example_for_a_detector() -> None:
    box = (64, 64, 64)

    def draw(seed: int):
        rng = np.random.default_rng(seed)
        return random_subject_example(rng, small_head(), shape=box, lesions=(4, 6))

    seen = 0
    for seed in range(3):
        found = draw(seed)
        assert found.image.shape == found.flags.shape == found.labels.shape == box
        brain = (found.flags & BRAIN) > 0
        assert 30_000 < brain.sum() < 46_000  # a ball of 22 mm
        assert np.percentile(found.image[brain], 99) >= 250  # scaled in the brain
        assert ((found.flags & LESION) > 0).sum() == (found.labels > 0).sum()
        assert ((found.flags & MIMIC) > 0).any()
        for row in found.lesions:
            if row['visible']:
                seen += 1
                where = np.argwhere(found.labels == row['number'])
                assert np.linalg.norm(where.mean(0) - row['voxel']) < 3
                inside = found.image[found.labels == row['number']].mean()
                assert inside < np.median(found.image[brain])
    assert seen > 2
    assert draw(1).image.tobytes() == draw(1).image.tobytes()


def test_a_grid_holds_what_lies_in_a_voxel() -> None:
    grid = Grid(np.array([3.0, 4.0, 5.0]), (20, 20, 6), (1.0, 1.0, 2.0), 2)
    inside = [(10.0, 5.0, 10.9), (-0.4, 19.4, 0.0)]
    outside = [(10.0, 5.0, 11.1), (-0.6, 5.0, 8.0), (1.0, 19.6, 0.0)]
    assert [grid.holds(np.array(point)) for point in inside + outside] == [True] * 2 + [False] * 3
