"""The known faults of Keras and TensorFlow: found by running them in small, not by version."""

from tf_largebatch.doctor._report import Finding, guarded


def faults(backend):
    """The known faults of the installed Keras and TensorFlow, and what is done about each."""
    import keras

    sgd, lamb = keras.optimizers.SGD, keras.optimizers.Lamb
    average = {"use_ema": True, "ema_overwrite_frequency": 1}

    def evaluate(model, inputs, labels, mask):
        return model.evaluate(inputs, labels, sample_weight=mask, verbose=0)

    tables = {
        "": [
            ("decay_outside_trust_ratio", lambda: decays_outside(lamb),
             "its optimizers decay within the ratio"),
            ("schedule_counts_micro_steps", lambda: counts_micro_steps(sgd),
             "its optimizers' schedules count updates; Trainer accumulates within its step"),
            ("bfloat16_stands_still", lambda: stands_still(lamb),
             "its optimizers keep slots and norms in float32"),
            ("padded_batch_loss", lambda: averages_padding(evaluate),
             "Trainer.evaluate counts no filling"),
        ],
        "tensorflow": [
            ("clips_before_reduction", lambda: clips_too_early(sgd),
             "its optimizers, and Trainer for Keras' own, reduce over replicas, then clip"),
            ("accumulation_on_replicas_raises",
             lambda: raises_merge_call(sgd, gradient_accumulation_steps=2),
             "its optimizers accumulate on replicas, and so does Trainer"),
            ("average_on_replicas_raises", lambda: raises_merge_call(sgd, **average),
             "its optimizers average on replicas"),
            ("one_cpu_strategy_a_process", lambda: share_group_keys(_mirrored),
             "make_strategy reduces without collectives on CPU"),
            ("index_shuffle_refuses_seeds", lambda: refuses_seeds(None),
             "its batches call the operation beneath index_shuffle"),
        ],
        "jax": [
            ("second_fit_with_average_fails", lambda: shares_buffer(sgd),
             "its optimizers copy the average into the weights"),
        ],
    }  # fmt: skip
    for owner, table in tables.items():
        for name, is_present, remedy in table:
            if owner in ("", backend):
                yield from guarded("faults", name, _fault, name, is_present, remedy)
            else:
                note = f"concerns Keras' {owner} backend"
                yield Finding("faults", name, "skipped", None, note)


def _fault(name, is_present, remedy):
    present = bool(is_present())
    note = f"tf_largebatch: {remedy}" if present else "not in these versions"
    return [Finding("faults", name, "present" if present else "mended", present, note)]


# Each check takes what it examines, so that it can be tried on what is right.


def decays_outside(optimizer):
    """Without a gradient the ratio is |w| / |wd * w|, so that rate 1 takes w to 0, not to 0.9 w."""
    return _first(_update(optimizer(1.0, weight_decay=0.1), [3, 4], [0, 0]), [2.7, 3.6], [0, 0])


def counts_micro_steps(optimizer):
    """After one update of two micro-steps a schedule should stand at 1."""
    import keras

    counter = keras.optimizers.schedules.PolynomialDecay(0.0, 100, end_learning_rate=100.0)
    made = optimizer(counter, gradient_accumulation_steps=2)
    _update(made, [0.0], [1.0], times=2)
    return _first(made.learning_rate, 2.0, 1.0)


def stands_still(optimizer):
    """0.999 rounds to 1 in bfloat16, and 1 - 0.999 to 0. The first update of LAMB is rate * |w|."""
    return _first(_update(optimizer(0.5), [1.0], [1.0], dtype="bfloat16"), [1.0], [0.5])


def averages_padding(evaluate):
    """The loss of an example of loss 1 and a filling of weight 0 is 1, not 1/2."""
    import keras
    import numpy as np

    ones, mask = np.ones((2, 1), "float32"), np.array([1, 0], "float32")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", loss="mse")
    return _first(evaluate(model, ones, 0 * ones, mask), 0.5, 1.0)


def clips_too_early(optimizer):
    """Gradients of [3, 0] and [0, 4] sum to norm 5: clipped to norm 1, [0.6, 0.8], not [1, 1]."""
    w = _update_on_replicas(lambda: optimizer(1.0, global_clipnorm=1.0))
    return _first(w, [-1, -1], [-0.6, -0.8])


def raises_merge_call(optimizer, **options):
    """Whether an update on two replicas fails, with these options."""
    try:
        _update_on_replicas(lambda: optimizer(1.0, **options))
    except RuntimeError as error:
        if "merge_call" not in str(error):
            raise
        return True
    return False


def share_group_keys(strategy):
    """Whether two strategies would name different groups of devices alike; runs no collective."""
    first, second = (strategy().extended._collective_keys for _ in range(2))
    return first.get_group_key(["CPU:0"]) == second.get_group_key(["CPU:0", "CPU:1"])


def refuses_seeds(shuffle):
    """Whether the documented seed for each element, (n, 2), is refused; None: TensorFlow's own."""
    import tensorflow as tf

    shuffle = shuffle or tf.random.experimental.index_shuffle
    try:
        shuffle(index=tf.range(3), seed=[[1, 2], [3, 4], [5, 6]], max_index=[9, 9, 9])
    except tf.errors.InvalidArgumentError:
        return True
    return False


def shares_buffer(optimizer):
    """Whether weights and average are one JAX buffer after `fit`, which the next would donate."""
    made = optimizer(0.1, use_ema=True)
    _update(made, [1.0], [1.0])
    [variable] = made._trainable_variables
    made.finalize_variable_values([variable])
    return made._model_variables_moving_average[0].value is variable.value


def _first(value, wrong, right):
    """Whether the value is the wrong one; ValueError if it is neither."""
    import numpy as np

    value = np.asarray(value, "float32")
    for expected, answer in ((wrong, True), (right, False)):
        if np.allclose(value, expected, rtol=1e-2, atol=1e-3):
            return answer
    raise ValueError(f"expected {wrong} or {right}, got {value.tolist()}")


def _update(optimizer, start, gradient, *, dtype="float32", times=1):
    import keras

    variable = keras.Variable(keras.ops.cast(start, dtype), dtype=dtype, name="w")
    optimizer.build([variable])
    for _ in range(times):
        optimizer.apply([keras.ops.cast(gradient, dtype)], [variable])
    return keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32"))


def _mirrored(**options):
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], **options)


def _update_on_replicas(make_optimizer, gradients=((3.0, 0.0), (0.0, 4.0))):
    """w = 0 after one update on two CPU devices, of which each gives one gradient."""
    import keras
    import tensorflow as tf

    strategy = _mirrored(cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        variable = keras.Variable([0.0, 0.0], name="w")
        optimizer = make_optimizer()
        optimizer.build([variable])

    def replica():
        i = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([tf.gather(tf.constant(gradients), i)], [variable])

    tf.function(lambda: strategy.run(replica))()
    return keras.ops.convert_to_numpy(variable)
