"""Changes of images: sizes, extremes, references, and one stream of random numbers an image."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from feldspar.core.errors import SetupError
from feldspar.recipe.sections.vision import (
    AugmentationSettings,
    CentreCrop,
    PaddedCrop,
    RandAugment,
    RandomResizedCrop,
)
from feldspar.vision.augment import (
    ErasingByNoise,
    Mixing,
    RandomOperations,
    centre_crop,
    training_transform,
)
from feldspar.vision.random_stream import OwnStream

EVERYTHING = AugmentationSettings(
    crop=RandomResizedCrop(type="random_resized"),
    flip=0.5,
    rand_augment=RandAugment(probability=1.0),
    erase=0.5,
)


def picture(seed: int, channels: int = 3, height: int = 12, width: int = 16) -> Tensor:
    """Random bytes, smooth enough to have a histogram worth equalizing."""
    values = np.random.default_rng(seed).normal(120, 25, size=(channels, height, width))
    return torch.from_numpy(values.clip(0, 255).astype(np.uint8))


def changed(image: Tensor, changes: AugmentationSettings, resolution: int, seed: int) -> Tensor:
    with OwnStream(seed):
        return training_transform(changes, resolution)(image)


changes_drawn = st.builds(
    AugmentationSettings,
    crop=st.one_of(
        st.just(CentreCrop()),
        st.builds(PaddedCrop, type=st.just("padded"), pixels=st.integers(1, 5)),
        st.builds(RandomResizedCrop, type=st.just("random_resized")),
    ),
    flip=st.sampled_from([0.0, 0.5]),
    rand_augment=st.sampled_from([None, RandAugment(probability=1.0), RandAugment(magnitude=0)]),
    erase=st.sampled_from([0.0, 1.0]),
)


@given(
    changes_drawn,
    st.integers(0, 2**63 - 1),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([8, 16, 24]),
    st.sampled_from([1, 3]),
)
@settings(max_examples=40)
def test_any_image_becomes_bytes_of_the_resolution(changes, seed, shape, resolution, channels):
    image = picture(seed, channels, *shape)
    before, state = image.clone(), torch.get_rng_state()
    first, again = (changed(image, changes, resolution, seed) for _ in range(2))
    assert first.shape == (channels, resolution, resolution)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert torch.equal(image, before)
    assert torch.equal(torch.get_rng_state(), state), "a draw that DRAWING does not know"


def test_threads_that_draw_at_once_give_the_same_pixels() -> None:
    image, transform = picture(1, 3, 40, 50), training_transform(EVERYTHING, 32)

    def one(seed: int) -> Tensor:
        with OwnStream(seed):
            return transform(image)

    alone = [one(seed) for seed in range(60)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(one, range(60)))
    assert all(map(torch.equal, alone, together))
    assert len({pixels.numpy().tobytes() for pixels in alone}) == 60


def test_a_stream_is_a_generator_of_its_own() -> None:
    generator = torch.Generator().manual_seed(7)
    expected = torch.rand(3, generator=generator), torch.randint(9, (4,), generator=generator)
    with OwnStream(7):
        drawn = torch.rand(3), torch.randint(9, (4,))
    assert all(map(torch.equal, drawn, expected))


def test_the_middle_square_is_cut() -> None:
    image = torch.arange(6 * 10, dtype=torch.uint8).view(1, 6, 10)
    assert torch.equal(centre_crop(image, 6), image[:, :, 2:8])
    assert torch.equal(centre_crop(image, 3, 0.5), image[:, 2:5, 4:7])


def test_resizing_is_pillows() -> None:
    image = picture(3, 3, 30, 30)
    as_pillow = Image.fromarray(image.permute(1, 2, 0).numpy())
    for side in (7, 15, 64):
        expected = np.array(as_pillow.resize((side, side), Image.Resampling.BILINEAR))
        difference = centre_crop(image, side).permute(1, 2, 0).int() - torch.from_numpy(expected)
        assert difference.abs().max() <= 1


def test_padding_shifts_by_up_to_its_width() -> None:
    image = picture(1, 1, 8, 8) | 1
    changes = AugmentationSettings(crop=PaddedCrop(type="padded", pixels=1))
    seen = set()
    for seed in range(100):
        part = changed(image, changes, 8, seed)[0]
        rows, columns = part.bool().any(1), part.bool().any(0)
        seen.add((bool(rows[0]), bool(rows[-1]), bool(columns[0]), bool(columns[-1])))
    assert len(seen) == 9


def test_random_parts_have_the_areas_and_ratios_asked_for() -> None:
    # Bytes that say where they come from: rows in one channel, columns in the other.
    rows, columns = torch.meshgrid(torch.arange(200), torch.arange(250), indexing="ij")
    image = torch.stack([rows, columns]).to(torch.uint8)
    crop = RandomResizedCrop(type="random_resized", area=(0.1, 0.6), aspect_ratio=(0.8, 1.25))
    transform = training_transform(AugmentationSettings(crop=crop), 64)
    areas, ratios = [], []
    with OwnStream(5):
        for _ in range(300):
            height, width = (float(plane.max()) - float(plane.min()) for plane in transform(image))
            areas.append(height * width / (200 * 250))
            ratios.append(width / height)
    assert 0.09 < min(areas) < 0.15 and 0.5 < max(areas) < 0.62
    assert 0.77 < min(ratios) < 0.85 and 1.15 < max(ratios) < 1.3


def test_a_flip_is_a_mirror_image() -> None:
    image = picture(4, 3, 8, 8)
    assert torch.equal(changed(image, AugmentationSettings(flip=1.0), 8, 0), image.flip(2))


@pytest.mark.parametrize(("magnitude", "bin_of_31"), [(10.0, 30), (5.0, 15), (0.0, 0)])
def test_strength_ten_is_the_strongest_of_torchvisions(magnitude: float, bin_of_31: int) -> None:
    image = picture(7, 3, 40, 40)
    ours = RandomOperations(
        RandAugment(operations=1, magnitude=magnitude, deviation=0, probability=1)
    )
    theirs = v2.RandAugment(1, bin_of_31, 31, interpolation=v2.InterpolationMode.BILINEAR)
    for seed in range(80):
        with OwnStream(seed):
            found = ours(image)
        with OwnStream(seed):
            _ = torch.rand(()), torch.randn(())  # whether to apply it, and how strongly
            expected = theirs(image)
        assert (found.int() - expected.int()).abs().max() <= 1, "rounding of the strength"


def test_strengths_vary_and_operations_are_skipped() -> None:
    image = picture(9, 3, 30, 30)
    never = RandomOperations(RandAugment(operations=5, probability=1e-12))
    one, varied = (
        RandomOperations(RandAugment(operations=1, deviation=deviation)) for deviation in (0, 3)
    )
    with OwnStream(0):
        assert torch.equal(never(image), image)
        shares = [not torch.equal(one(image), image) for _ in range(400)]
        kinds = [
            len({apply(image).numpy().tobytes() for _ in range(400)}) for apply in (one, varied)
        ]
    # Half of what is drawn is applied, and 13 of 14 operations change the image.
    assert np.mean(shares) == pytest.approx(0.5 * 13 / 14, abs=0.08)
    # Without variation: the image, three operations without a sign, ten with two signs or none.
    assert kinds[0] <= 24 < kinds[1]


def test_erasing_replaces_one_rectangle_by_noise() -> None:
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    shares = []
    for seed in range(100):
        with OwnStream(seed):
            erased = ErasingByNoise(1.0)(image)
        assert erased.dtype == torch.uint8
        where = erased.any(0)
        rows, columns = where.any(1).nonzero(), where.any(0).nonzero()
        box = erased[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.any(0).float().mean() > 0.9
        assert 60 < box.float().mean() < 200, "uniform bytes"
        shares.append(float(where.float().mean()))
    assert not image.any()
    assert 0.01 < min(shares) < 0.05 and 0.25 < max(shares) < 0.37


def mixed(changes: AugmentationSettings, seed: int) -> tuple[Tensor, Tensor]:
    """Flat images of 0, 1, 2 and 3, and targets that say which they are, mixed."""
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 10, 10).clone()
    with OwnStream(seed):
        return Mixing(changes)(images, torch.eye(4))


def test_mixup_mixes_each_image_and_target_with_the_one_before() -> None:
    images, targets = mixed(AugmentationSettings(mixup=1.0), 3)
    share = float(targets[0, 0])
    assert 0 < share < 1
    partner = torch.tensor([3.0, 0.0, 1.0, 2.0])
    expected = share * torch.arange(4.0) + (1 - share) * partner
    torch.testing.assert_close(images, expected.view(4, 1, 1, 1).expand_as(images))
    torch.testing.assert_close(
        targets, share * torch.eye(4) + (1 - share) * torch.eye(4).roll(1, 0)
    )


def test_cutmix_replaces_a_rectangle_and_weighs_targets_by_its_area() -> None:
    shares = []
    for seed in range(20):
        images, targets = mixed(AugmentationSettings(cutmix=1.0), seed)
        for number, (image, target) in enumerate(zip(images, targets, strict=True)):
            kept = float((image == number).float().mean())
            assert float(target[number]) == pytest.approx(kept)
            assert float(target[number - 1]) == pytest.approx(1 - kept)
            assert set(image.unique().tolist()) <= {number, (number - 1) % 4}
        shares.append(kept)
    assert min(shares) < 0.5 < max(shares)


def test_one_of_two_ways_to_mix_is_drawn_for_each_step() -> None:
    both = AugmentationSettings(mixup=1.0, cutmix=1.0)
    whole = [bool((mixed(both, seed)[0] % 1 == 0).all()) for seed in range(40)]
    assert 10 < sum(whole) < 30
    assert not Mixing(AugmentationSettings())


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    with pytest.raises(SetupError, match="torchvision is not installed") as caught:
        training_transform(AugmentationSettings(), 8)
    assert "feldspar[vision]" in str(caught.value.do)
