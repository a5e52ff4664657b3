"""What is done to an image before the model sees it: cropped, flipped, coloured, standardised.

Nothing here draws from a generator that moves on. Each example has a key of its own in each epoch,
a function of (seed, epoch, example), and all that is random about it is a function of that key: the
same at any batch size, on any number of workers, with any number of threads, and after a resume.

- `"none"`: the central square of .875 of the short side, as in evaluation.
- `"weak"`: a square of that side anywhere in the image; half of them mirrored.
- `"heavy"`: a rectangle of `min_area` to 1 of the area and an aspect of 3/4 to 4/3 (Szegedy et al.
  2014, arXiv:1409.4842, section 6), half of them mirrored, then contrast and brightness, both times
  .6 to 1.4, and AlexNet's lighting, noise of deviation .1 along the principal axes of ImageNet's
  colours (Krizhevsky et al. 2012, section 4.1). TensorFlow's sampler draws the height evenly, not
  the area, so that small crops are more frequent than in the paper. Contrast is about the mean
  colour of ImageNet, not the image's own, and hue and saturation stay, so that all of colour is one
  scale and one shift.
- `"cifar"`, for small images in memory: 4 pixels of border, reflected, a crop of the old size
  anywhere, half of them mirrored, and a hole of 8x8 in the mean colour (DeVries and Taylor 2017,
  arXiv:1708.04552), the setting of DavidNet.
"""

import math

import numpy as np
import tensorflow as tf

# Of ImageNet's training images, in red, green and blue; in pixel values of 0 to 255.
MEAN = np.float32([123.675, 116.28, 103.53])
STD = np.float32([58.395, 57.12, 57.375])
# The principal axes of its colours, one a column, and the deviations along them.
_AXES = np.float32(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
_DEVIATIONS = 255 * np.float32([0.2175, 0.0188, 0.0045])

CENTRAL = 0.875  # 224 of 256 pixels
_BORDER, _HOLE = 4, 8  # pixels


def draw(keys, augmentation):
    """All that is random about the images of a batch.

    Args:
        keys: (batch, 2) int32, one for each example in this epoch; None for evaluation.
        augmentation: `"none"`, `"weak"` or `"heavy"`.

    Returns:
        A dict of tensors of length batch, for `decode`.
    """
    if augmentation == "none" or keys is None:
        return {}
    if augmentation == "weak":
        numbers = _uniform(keys, 3)
        return {"reversed": _half_of_columns(numbers[:, 0]), "place": numbers[:, 1:]}
    numbers = _uniform(keys, 7)
    scale, shift = _coloured(numbers[:, 1:2], numbers[:, 2:3], numbers[:, 3:])
    return {
        "reversed": _half_of_columns(numbers[:, 0]), "box": keys, "scale": scale, "shift": shift,
    }  # fmt: skip


def decode(jpeg, drawn, *, image_size, min_area):
    """One JPEG as the model sees it; only the part that is kept is decoded.

    Args:
        jpeg: () string, the bytes of the file.
        drawn: The image's own entry of what `draw` returned.
        image_size: Side of the result, in pixels.
        min_area: Smallest part of the image that `"heavy"` may keep, above 0 and at most 1.

    Returns:
        (image_size, image_size, 3) float32: resized bilinearly, minus `MEAN`, by `STD`.
    """
    shape = tf.image.extract_jpeg_shape(jpeg)  # from the header
    if "box" in drawn:
        window = _distorted(shape, drawn["box"], min_area)
    else:
        window = _square(shape, drawn.get("place", 0.5))
    # Colours stored at half the resolution are repeated, not interpolated: 5 % less time in all.
    image = tf.io.decode_and_crop_jpeg(jpeg, window, channels=3, fancy_upscaling=False)
    image = tf.raw_ops.ResizeBilinear(
        images=image[tf.newaxis], size=(image_size, image_size), half_pixel_centers=True
    )
    scale, shift = drawn.get("scale", 1 / STD), drawn.get("shift", -MEAN / STD)
    # By rows: to broadcast three channels over the pixels would cost seven times as much.
    rows = tf.reshape(image, (image_size, image_size * 3))
    rows = rows * tf.tile(scale, [image_size]) + tf.tile(shift, [image_size])
    image = tf.reshape(rows, (image_size, image_size, 3))
    if drawn:
        image = tf.raw_ops.Reverse(tensor=image, dims=drawn["reversed"])
    return image


def pad_crop_flip_cutout(images, keys):
    """The augmentation `"cifar"` of a batch.

    Args:
        images: (batch, height, width, channels), standardised, at least 8x8.
        keys: (batch, 2) int32, whose 62 bits are one random number for each example.

    Returns:
        Images of the same shape.
    """
    _, height, width, channels = images.shape
    numbers = tf.bitcast(keys, tf.int64)  # (batch,)

    def drawn(count):
        nonlocal numbers
        number, numbers = numbers % count, numbers // count
        return tf.cast(number, tf.int32)[:, tf.newaxis]  # (batch, 1)

    def taken(side):
        place = tf.abs(drawn(2 * _BORDER + 1) - _BORDER + tf.range(side))
        return (side - 1) - tf.abs((side - 1) - place)  # (batch, side), reflected at both ends

    def cut(side):
        low = drawn(side - _HOLE + 1)
        return (tf.range(side) >= low) & (tf.range(side) < low + _HOLE)  # (batch, side)

    rows, columns = taken(height), taken(width)
    columns = tf.where(drawn(2) == 0, columns, columns[:, ::-1])
    pixels = rows[:, :, tf.newaxis] * width + columns[:, tf.newaxis]  # (batch, height, width)
    images = tf.gather(tf.reshape(images, (-1, height * width, channels)), pixels, batch_dims=1)
    hole = cut(height)[:, :, tf.newaxis] & cut(width)[:, tf.newaxis]
    return tf.where(hole[..., tf.newaxis], tf.zeros_like(images), images)


def _half_of_columns(numbers):
    """Which of an image's three dimensions to reverse, (batch, 3) bool: the second, or none."""
    flip = numbers < 0.5
    return tf.stack([tf.zeros_like(flip), flip, tf.zeros_like(flip)], 1)


def _square(shape, place):
    """The window (y, x, height, width) of a square, between the low ends at 0 and the high at 1."""
    short = tf.cast(tf.minimum(shape[0], shape[1]), tf.float32)
    side = tf.maximum(tf.cast(tf.round(CENTRAL * short), tf.int32), 1)
    room = shape[:2] - side
    low = tf.cast(tf.floor(place * tf.cast(room + 1, tf.float32)), tf.int32)
    return tf.concat([tf.minimum(low, room), [side, side]], 0)


def _distorted(shape, key, min_area):
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=key,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(min_area, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )  # the whole image, if no attempt fits
    return tf.gather(tf.concat([begin, size], 0), [0, 1, 3, 4])


def _coloured(contrast, brightness, lighting):
    """Colour and standardisation as one scale and one shift for each channel, (batch, 3) each."""
    contrast, brightness = 0.6 + 0.8 * contrast, 0.6 + 0.8 * brightness  # (batch, 1)
    # Box and Muller: two uniform numbers make two normal ones.
    radius = tf.sqrt(-2 * tf.math.log1p(-lighting[:, :2]))
    angle = 2 * math.pi * lighting[:, 2:]
    normal = tf.concat([radius * tf.cos(angle), radius[:, :1] * tf.sin(angle[:, :1])], 1)
    light = tf.matmul(0.1 * normal * _DEVIATIONS, _AXES, transpose_b=True)
    # contrast * (brightness * x - MEAN) + MEAN + light; of that minus MEAN, by STD
    return contrast * brightness / STD, (light - contrast * MEAN) / STD


def _uniform(keys, count):
    """(batch, count) float32 of at least 0 and below 1, functions of the keys (batch, 2) int32.

    A cipher makes two of the 62 bits of a key, and another of its keys the next two.
    """
    numbers, columns = tf.bitcast(keys, tf.int64), []
    for stream in range(-(-count // 2)):
        mixed = tf.raw_ops.RandomIndexShuffle(
            index=numbers,
            seed=tf.constant([stream, 1, 2], tf.uint32),
            max_index=tf.constant(2**62 - 1, tf.int64),
            rounds=16,
        )
        columns += [mixed // 2**31, mixed]
    bits = tf.stack(columns[:count], 1) % 2**24  # as many as float32 has
    return tf.cast(bits, tf.float32) / 2**24
