"""What is done to the images: by keys alone, and what the names promise."""

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def keys(count, seed=0):
    """(count, 2) int32, as `training_batches` makes them: 62 random bits each."""
    numbers = np.random.default_rng(seed).integers(2**62, size=count)
    return numbers.view(np.int32).reshape(count, 2)


def ramp(height, width):
    """A picture in which each pixel says where it is: x in red, y in green."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 100)], -1).astype(np.uint8)


def encoded(pixels):
    import tensorflow as tf

    return tf.io.encode_jpeg(pixels, quality=100)


def decoded(jpeg, key=None, *, augmentation="none", image_size=32, min_area=0.05):
    """One image in pixel values, and what was drawn for it."""
    import tensorflow as tf

    from tf_largebatch.data.augmentation import decode, draw

    drawn = draw(None if key is None else tf.constant(key)[tf.newaxis], augmentation)
    drawn = {name: value[0] for name, value in drawn.items()}
    image = decode(jpeg, drawn, image_size=image_size, min_area=min_area).numpy()
    return image * STD + MEAN, {name: value.numpy() for name, value in drawn.items()}


def resized(pixels, size):
    """Bilinear, half-pixel centres, in float64."""
    for axis in (0, 1):
        n = pixels.shape[axis]
        place = ((np.arange(size) + 0.5) * n / size - 0.5).clip(0, n - 1)
        low = np.floor(place).astype(int)
        t = np.expand_dims(place - low, list(range(1, pixels.ndim - axis)))
        high = np.minimum(low + 1, n - 1)
        pixels = pixels.take(low, axis) * (1 - t) + pixels.take(high, axis) * t
    return pixels


@pytest.mark.parametrize("height, width", [(200, 120), (120, 200), (64, 64), (37, 90), (1, 1)])
def test_evaluation_sees_the_central_square_of_the_whole_decoded_image(height, width):
    import tensorflow as tf

    jpeg = encoded(ramp(height, width))
    side = max(1, int(np.round(0.875 * min(height, width))))
    y, x = (height - side + 1) // 2, (width - side + 1) // 2
    whole = tf.io.decode_jpeg(jpeg, channels=3, fancy_upscaling=False).numpy().astype(float)
    expected = resized(whole[y : y + side, x : x + side], 32)
    np.testing.assert_allclose(decoded(jpeg)[0], expected, atol=1e-3)
    # Training without augmentation sees the same.
    np.testing.assert_allclose(decoded(jpeg, keys(1)[0])[0], expected, atol=1e-3)


def test_grey_jpegs_come_in_three_colours():
    import tensorflow as tf

    jpeg = tf.io.encode_jpeg(np.full((40, 50, 1), 90, np.uint8), quality=100)
    np.testing.assert_allclose(decoded(jpeg)[0], 90, atol=1.01)


def test_weak_takes_squares_of_one_side_from_everywhere_and_mirrors_half():
    jpeg = encoded(ramp(128, 240))  # squares of 112: x from 0 to 128, y from 0 to 16
    lefts, tops, flips = [], [], []
    for key in keys(300):
        image, drawn = decoded(jpeg, key, augmentation="weak", image_size=112)
        x, y = image[:, :, 0].mean(0), image[:, :, 1].mean(1)
        assert abs(abs(x[-1] - x[0]) - 111) < 3 and abs(y[-1] - y[0] - 111) < 3
        lefts.append(min(x[0], x[-1])), tops.append(y[0]), flips.append(x[0] > x[-1])
        assert flips[-1] == drawn["reversed"][1]
    assert abs(np.mean(flips) - 0.5) < 0.1
    assert min(lefts) < 6 and max(lefts) > 122 and abs(np.mean(lefts) - 64) < 8
    assert min(tops) < 2 and max(tops) > 14 and abs(np.mean(tops) - 8) < 1.5


@pytest.mark.parametrize("min_area", [0.05, 0.5])
def test_heavy_keeps_the_promised_areas_and_aspects(min_area):
    height, width = 180, 240
    jpeg = encoded(ramp(height, width))
    areas, aspects, flips = [], [], []
    for key in keys(300, seed=1):
        image, drawn = decoded(jpeg, key, augmentation="heavy", image_size=32, min_area=min_area)
        # What the colours did is undone, to see where the pixels are from.
        image = ((image - MEAN) / STD - drawn["shift"]) / drawn["scale"]
        x, y = image[:, :, 0].mean(0), image[:, :, 1].mean(1)
        w, h = (abs(v[20] - v[10]) * 3.2 for v in (x, y))
        areas.append(w * h / (height * width)), aspects.append(w / h), flips.append(x[0] > x[-1])
        assert flips[-1] == drawn["reversed"][1]
    assert min_area - 0.03 < min(areas) < min_area + 0.1 and 0.85 < max(areas) < 1.05
    assert np.std(areas) > 0.1
    assert 0.7 < min(aspects) < 0.85 and 1.2 < max(aspects) < 1.45
    assert abs(np.mean(flips) - 0.5) < 0.1


def test_colours_of_heavy_are_contrast_brightness_and_lighting():
    import tensorflow as tf

    from tf_largebatch.data.augmentation import draw

    drawn = draw(tf.constant(keys(20_000)), "heavy")
    scale, shift = drawn["scale"].numpy() * STD, drawn["shift"].numpy() * STD  # to pixel values
    assert np.ptp(scale, axis=1).max() < 1e-5  # the same for the three colours
    product = scale[:, 0]  # of two numbers between .6 and 1.4
    assert 0.36 <= product.min() < 0.4 and 1.85 < product.max() <= 1.96
    assert abs(product.mean() - 1) < 0.01
    # shift = light - contrast * MEAN. The light has mean 0 and the colours' covariance, times .01.
    light = shift + MEAN * (shift @ MEAN / -(MEAN @ MEAN))[:, np.newaxis]
    axes = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    covariance = axes @ np.diag((25.5 * np.array([0.2175, 0.0188, 0.0045])) ** 2) @ axes.T
    onto = np.eye(3) - np.outer(MEAN, MEAN) / (MEAN @ MEAN)  # what `light` kept of it
    np.testing.assert_allclose(np.cov(light.T), onto @ covariance @ onto, atol=0.02)
    contrast = -(shift @ MEAN) / (MEAN @ MEAN)  # and a little light
    assert abs(contrast.mean() - 1) < 0.01 and abs(contrast.std() - 0.8 / 12**0.5) < 0.01


@pytest.mark.parametrize("augmentation", ["weak", "heavy"])
def test_an_image_is_a_function_of_its_key(augmentation):
    jpeg = encoded(ramp(90, 120))
    one, two = keys(2)
    first = decoded(jpeg, one, augmentation=augmentation)[0]
    np.testing.assert_array_equal(decoded(jpeg, one, augmentation=augmentation)[0], first)
    assert abs(decoded(jpeg, two, augmentation=augmentation)[0] - first).max() > 1


def test_draws_of_neighbouring_keys_are_independent_and_uniform():
    import tensorflow as tf

    from tf_largebatch.data import augmentation

    numbers = np.arange(10_000, dtype=np.int64).view(np.int32).reshape(-1, 2)  # the worst of keys
    draws = augmentation._uniform(tf.constant(numbers), 7).numpy().astype(float)  # (10000, 7)
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.apply_along_axis(lambda d: np.histogram(d, 16, (0, 1))[0], 0, draws)
    chi2 = ((counts - 625) ** 2 / 625).sum(0)  # 15 degrees of freedom
    assert chi2.max() < 45
    rows = np.vstack([draws.T, np.arange(10_000), np.roll(draws, 1, axis=0).T])
    between = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    assert abs(100 * between).max() < 4.5


def candidates(image):
    """All crops of the reflected image, plain and mirrored: {(y, x, flip): pixels}."""
    h, w = image.shape[:2]
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    crops = {(y, x): padded[y : y + h, x : x + w] for y in range(9) for x in range(9)}
    return {(*k, f): c[:, ::-1] if f else c for k, c in crops.items() for f in (False, True)}


def test_cifar_pads_crops_flips_and_cuts_a_hole():
    import tensorflow as tf

    from tf_largebatch.data.augmentation import pad_crop_flip_cutout

    height, width, count = 12, 16, 400
    image = np.random.default_rng(0).uniform(1, 2, (height, width, 3)).astype(np.float32)
    batch = np.broadcast_to(image, (count, *image.shape))
    found = pad_crop_flip_cutout(tf.constant(batch), tf.constant(keys(count))).numpy()
    possible, drawn = candidates(image), []
    for result in found:
        hole = (result == 0).all(-1)
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == 64 and np.ptp(rows) == np.ptp(columns) == 7
        matching = [k for k, c in possible.items() if (c[~hole] == result[~hole]).all()]
        assert len(matching) == 1
        drawn.append((*matching[0], rows[0], columns[0]))
    y, x, flip, top, left = np.array(drawn).T
    for values, choices in [(y, 9), (x, 9), (flip, 2), (top, 5), (left, 9)]:
        counts = np.bincount(values, minlength=choices)
        assert len(counts) == choices
        assert abs(counts / count * choices - 1).max() < 5 * (choices / count) ** 0.5
    assert abs(np.corrcoef([y, x, flip, top, left])[np.triu_indices(5, 1)]).max() < 0.2


def test_cifar_treats_each_image_by_its_own_key():
    import tensorflow as tf

    from tf_largebatch.data.augmentation import pad_crop_flip_cutout

    images = np.random.default_rng(0).normal(size=(9, 10, 8, 1)).astype(np.float32)
    whole = pad_crop_flip_cutout(tf.constant(images), tf.constant(keys(9))).numpy()
    for i in (0, 4, 8):
        alone = pad_crop_flip_cutout(
            tf.constant(images[i : i + 1]), tf.constant(keys(9)[i : i + 1])
        )
        np.testing.assert_array_equal(alone[0], whole[i])
