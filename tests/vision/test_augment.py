"""Crops and random operations: sizes, extremes, references, and one stream of chance an image."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from feldspar.recipe.sections.vision import (
    AugmentationSettings,
    CentreCrop,
    PaddedCrop,
    RandAugment,
    RandomResizedCrop,
)
from feldspar.vision.augment import augment, erased
from feldspar.vision.crops import centre_crop, resize, training_crop
from feldspar.vision.random_operations import OPERATIONS, rand_augment

BY_NAME = {operation.__name__.strip("_"): operation for operation in OPERATIONS}


def picture(seed: int, channels: int = 3, height: int = 12, width: int = 16) -> Tensor:
    """Random bytes, smooth enough to have a histogram worth equalizing."""
    values = np.random.default_rng(seed).normal(120, 25, size=(channels, height, width))
    return torch.from_numpy(values.clip(0, 255).astype(np.uint8))


def as_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def from_pillow(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


settings_drawn = st.builds(
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
    settings_drawn,
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 33),
    st.sampled_from([1, 3]),
)
def test_any_image_becomes_bytes_of_the_resolution(settings, seed, shape, resolution, channels):
    image = picture(seed, channels, *shape)
    before = image.clone()
    first, again = (
        augment(image, resolution, settings, np.random.default_rng(seed)) for _ in range(2)
    )
    assert first.shape == (channels, resolution, resolution)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert torch.equal(image, before)


def test_the_middle_square_is_cut():
    image = torch.arange(6 * 10, dtype=torch.uint8).view(1, 6, 10)
    assert torch.equal(centre_crop(image, 6), image[:, :, 2:8])
    assert torch.equal(centre_crop(image, 3, 0.5), image[:, 1:4, 3:6])


def test_resizing_is_pillows():
    image = picture(3, 3, 30, 30)
    for side in (7, 15, 64):
        expected = as_pillow(image).resize((side, side), Image.Resampling.BILINEAR)
        difference = resize(image, side).int() - from_pillow(expected).int()
        assert difference.abs().max() <= 1


def test_padding_shifts_by_up_to_its_width():
    image = picture(1, 1, 8, 8) | 1
    chance = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        part = training_crop(image, 8, PaddedCrop(type="padded", pixels=1), chance)
        rows, columns = part[0].bool().any(1), part[0].bool().any(0)
        seen.add((bool(rows[0]), bool(rows[-1]), bool(columns[0]), bool(columns[-1])))
    assert len(seen) == 9


def test_random_parts_have_the_areas_and_ratios_asked_for():
    # Bytes that say where they come from: rows in one channel, columns in the other.
    rows, columns = torch.meshgrid(torch.arange(200), torch.arange(250), indexing="ij")
    image = torch.stack([rows, columns]).to(torch.uint8)
    crop = RandomResizedCrop(type="random_resized", area=(0.1, 0.6))
    chance = np.random.default_rng(5)
    areas, ratios = [], []
    for _ in range(300):
        part = training_crop(image, 64, crop, chance).float()
        height, width = (float(plane.max() - plane.min()) for plane in part)
        areas.append(height * width / (200 * 250))
        ratios.append(width / height)
    assert 0.09 < min(areas) < 0.15 and 0.5 < max(areas) < 0.62
    assert 0.72 < min(ratios) < 0.85 and 1.2 < max(ratios) < 1.37


def test_a_part_that_never_fits_is_the_middle():
    thin = picture(2, 1, 1, 100)
    crop = RandomResizedCrop(type="random_resized", area=(0.9, 1.0))
    part = training_crop(thin, 4, crop, np.random.default_rng(0))
    assert torch.equal(part, thin[:, :, 49:50].expand(1, 4, 4))


def test_a_flip_is_a_mirror_image():
    image = picture(4, 3, 8, 8)
    mirrored = augment(image, 8, AugmentationSettings(flip=1.0), np.random.default_rng(0))
    assert torch.equal(mirrored, image.flip(2))


def test_erasing_replaces_one_rectangle_by_noise():
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    shares = []
    for seed in range(100):
        changed = erased(image, np.random.default_rng(seed)).any(0)
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        box = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.float().mean() > 0.9
        shares.append(float(changed.float().mean()))
    assert 0.01 < min(shares) < 0.05 and 0.25 < max(shares) < 0.37


@pytest.mark.parametrize(
    ("name", "strength", "sign", "reference"),
    [
        ("autocontrast", 0.0, 1.0, ImageOps.autocontrast),
        ("equalize", 0.0, 1.0, ImageOps.equalize),
        ("posterize", 0.5, 1.0, lambda image: ImageOps.posterize(image, 6)),
        ("posterize", 1.0, 1.0, lambda image: ImageOps.posterize(image, 4)),
        ("solarize", 0.5, 1.0, lambda image: ImageOps.solarize(image, 128)),
        ("color", 1.0, 1.0, lambda image: ImageEnhance.Color(image).enhance(1.9)),
        ("color", 1.0, -1.0, lambda image: ImageEnhance.Color(image).enhance(0.1)),
        ("contrast", 0.5, 1.0, lambda image: ImageEnhance.Contrast(image).enhance(1.45)),
        ("brightness", 0.5, -1.0, lambda image: ImageEnhance.Brightness(image).enhance(0.55)),
        ("rotate", 1.0, 1.0, lambda image: image.rotate(30, Image.Resampling.BILINEAR)),
        ("shift_x", 0.5, 1.0, lambda image: _moved(image, (1, 0, 0.225 * image.width, 0, 1, 0))),
        ("shift_y", 0.5, -1.0, lambda image: _moved(image, (1, 0, 0, 0, 1, -0.225 * image.height))),
    ],
)
def test_operations_are_pillows(name, strength, sign, reference):
    image = picture(7, 3, 40, 40)
    ours = BY_NAME[name](image, strength, sign).int()
    difference = (ours - from_pillow(reference(as_pillow(image))).int()).abs()
    if name in ("rotate", "shift_x", "shift_y"):
        difference = difference[:, 12:28, 12:28]  # borders are filled in another way
    assert difference.max() <= 2


def _moved(image: Image.Image, rows: tuple[float, ...]) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, rows, resample=Image.Resampling.BILINEAR
    )


def test_operations_without_strength_change_nothing():
    image = picture(8)
    for name, operation in BY_NAME.items():
        if name not in ("autocontrast", "equalize"):  # these have no strength
            assert torch.equal(operation(image, 0.0, 1.0), image), name


def test_shears_move_rows_and_columns():
    image = torch.zeros(1, 21, 21, dtype=torch.uint8)
    image[:, :, 10] = 255
    sheared = BY_NAME["shear_x"](image, 1.0, 1.0)[0].float()
    places = (sheared * torch.arange(21.0)).sum(1) / sheared.sum(1)
    expected = 10 - 0.3 * (torch.arange(21.0) - 10)
    torch.testing.assert_close(places, expected, atol=0.05, rtol=0)
    down = BY_NAME["shear_y"](image.mT.contiguous(), 1.0, 1.0)[0].float()
    torch.testing.assert_close(down, sheared.mT)


def test_extremes_of_images_survive_every_operation():
    for value in (0, 255):
        for channels in (1, 3):
            flat = torch.full((channels, 6, 6), value, dtype=torch.uint8)
            for operation in OPERATIONS:
                assert operation(flat, 1.0, 1.0).dtype == torch.uint8
            assert torch.equal(BY_NAME["equalize"](flat, 1.0, 1.0), flat)
            assert torch.equal(BY_NAME["autocontrast"](flat, 1.0, 1.0), flat)


def test_as_many_operations_as_asked_for_are_drawn():
    image = picture(9)
    never = RandAugment(operations=5, probability=1e-12)
    assert torch.equal(rand_augment(image, never, np.random.default_rng(0)), image)
    changed = [
        not torch.equal(
            rand_augment(image, RandAugment(operations=1), np.random.default_rng(seed)), image
        )
        for seed in range(400)
    ]
    # Half of what is drawn is applied, and 13 of 14 operations change the image.
    assert np.mean(changed) == pytest.approx(0.5 * 13 / 14, abs=0.08)
