"""How sharp a minimum is: the largest relative rise of the loss in a small box around it."""

import tensorflow as tf

from tf_largebatch.diagnostics.batch_loss import BatchLoss, refuse_half_precision
from tf_largebatch.scaling import check_count, check_number

BOXES = ("absolute", "relative")


def sharpness(
    model, inputs, labels, sample_weight=None, *, epsilon=1e-3, box="absolute", random_starts=4,
    max_steps=20, seed=0, micro_batch_size=None, training=False,
):  # fmt: skip
    """max over z in the box of (f(w + z) - f(w)) / (1 + f(w)), for the model's present weights w.

    As the slides of CS5260 (2023) define it ("a box B of width epsilon centered at w*"), after
    Keskar et al. 2016 (arXiv:1609.04836), metric 2.1, who give it in per cent: theirs is this
    value times 100.

    Args:
        model, inputs, labels, sample_weight, micro_batch_size, training: as `BatchLoss` takes
            them. f includes the regularisers.
        epsilon: size of the box.
        box: "absolute": |z_i| <= epsilon / 2, of width epsilon in each weight, as on the slides.
            "relative": |z_i| <= epsilon (|w_i| + 1), which is a half width, as in Keskar's paper
            with A the identity.
        random_starts: corners of the box, drawn at random, from which the maximum is sought beside
            the centre. At a minimum the gradient vanishes, so that the centre alone leads nowhere.
        max_steps: most steps from each start.
        seed: of the random corners.

    The maximum is sought as in the Frank-Wolfe method: from z a step goes to the corner at which
    f's linearisation is largest, or half as far, a quarter ..., until f rises. Where f is convex
    every step to a corner raises it, and the end is a corner that no further step improves. What is
    found is a lower bound of the true maximum. The cost is at most (1 + random_starts) *
    (max_steps + 1) + 1 gradients of the batch. In float32 differences below about 1e-7 (1 + f)
    are rounding.

    Returns:
        A float, at least 0; NaN if the loss at w isn't finite.

    Raises:
        ValueError: for an unknown box or a number out of range, if layers compute in 16 bits, or
            as `BatchLoss`.

    The loss w^2 with w = 1 within 0.05 of it: (1.05^2 - 1) / 2.

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")
    >>> model.set_weights([np.ones((1, 1))])
    >>> round(sharpness(model, np.ones((1, 1)), np.zeros((1, 1)), epsilon=0.1), 5)
    0.05125
    """
    if box not in BOXES:
        raise ValueError(f"box must be one of {list(BOXES)}. Received: {box!r}.")
    epsilon = check_number("epsilon", epsilon)
    random_starts = check_count("random_starts", random_starts, at_least=0)
    max_steps = check_count("max_steps", max_steps)
    refuse_half_precision(model, "Sharpness")
    batch_loss = BatchLoss(
        model, inputs, labels, sample_weight,
        micro_batch_size=micro_batch_size, training=training,
    )  # fmt: skip
    weights = batch_loss.read_weights()
    halves = [
        tf.ones_like(w) * (epsilon / 2) if box == "absolute" else epsilon * (tf.abs(w) + 1)
        for w in weights
    ]
    centre = [tf.zeros_like(w) for w in weights]
    starts = [centre]
    for number in range(random_starts):
        starts.append([_random_corner(h, (seed, number), i) for i, h in enumerate(halves)])
    loss = float(batch_loss.loss(weights))
    if loss <= -1:
        raise ValueError(f"The loss must be above -1: it is divided by 1 + f. Received: f={loss}.")
    highest = loss
    for start in starts:
        highest = max(highest, _climb(batch_loss, weights, halves, start, max_steps))
    return (highest - loss) / (1 + loss)


def _climb(batch_loss, weights, halves, z, max_steps):
    """The largest loss found from z on, a float."""

    def at(z):
        value, gradient = batch_loss.gradient([w + x for w, x in zip(weights, z, strict=True)])
        return float(value), gradient

    highest, gradient = at(z)
    length = 1.0
    for _ in range(max_steps):
        # Where the gradient is zero, z stays.
        corner = [
            tf.where(g == 0, x, tf.sign(g) * h) for x, g, h in zip(z, gradient, halves, strict=True)
        ]
        if all(bool(tf.reduce_all(c == x)) for c, x in zip(corner, z, strict=True)):
            break
        tried = [x + tf.cast(length, x.dtype) * (c - x) for x, c in zip(z, corner, strict=True)]
        value, new_gradient = at(tried)
        if value > highest:
            z, highest, gradient, length = tried, value, new_gradient, 1.0
        else:
            length /= 2
    return highest


def _random_corner(half, seed, number):
    seed = tf.random.experimental.stateless_fold_in(seed, number)
    up = tf.random.stateless_uniform(half.shape, seed) < 0.5
    return tf.where(up, half, -half)
