"""Variables that are tensors of the graph while a step is traced.

TensorFlow's bridge to TPUs compiles without a device only what takes no resource. A step that is
traced with such variables is a function of their values that returns their new ones; the step
itself isn't changed and doesn't know.
"""

import contextlib

import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops


class GraphVariable(resource_variable_ops.ResourceVariable):
    """A `tf.Variable` that stands for the tensor `bound` as long as there is one.

    It can be bound in a graph alone, not across the border of a loop's body.
    """

    bound = None

    @property
    def handle(self):
        """What gradients are taken with respect to."""
        return super().handle if self.bound is None else self.bound

    def _read_variable_op(self, no_copy=False):
        if self.bound is None:
            return super()._read_variable_op(no_copy)
        resource_variable_ops.variable_accessed(self)
        return self.bound

    def sparse_read(self, indices, name=None):
        """The rows of these indices."""
        if self.bound is None:
            return super().sparse_read(indices, name)
        return tf.gather(self._read_variable_op(), indices)

    def assign(self, value, *args, **kwargs):
        """A new tensor in place of the old one."""
        if self.bound is None:
            return super().assign(value, *args, **kwargs)
        self.bound = tf.ensure_shape(tf.convert_to_tensor(value, self.dtype), self.shape)
        return self.bound

    def assign_add(self, delta, *args, **kwargs):
        """As `assign`."""
        if self.bound is None:
            return super().assign_add(delta, *args, **kwargs)
        return self.assign(self.bound + tf.convert_to_tensor(delta, self.dtype))

    def assign_sub(self, delta, *args, **kwargs):
        """As `assign`."""
        if self.bound is None:
            return super().assign_sub(delta, *args, **kwargs)
        return self.assign(self.bound - tf.convert_to_tensor(delta, self.dtype))


@contextlib.contextmanager
def graph_variables():
    """Within it, all variables that are made are `GraphVariable`s; yields the list of them."""
    made = []

    def create(next_creator, **arguments):
        arguments.pop("use_resource", None)
        made.append(GraphVariable(**arguments))
        return made[-1]

    with tf.variable_creator_scope(create):
        yield made


def stateless(function, variables):
    """`function` of the variables' values and its own arguments, all tensors.

    Returns:
        A function that returns the flat list of its results, and the variables' new values.
    """

    def pure(*tensors):
        values, arguments = tensors[: len(variables)], tensors[len(variables) :]
        try:
            for variable, value in zip(variables, values, strict=True):
                variable.bound = value
            results = tf.nest.flatten(function(*arguments))
            return results, [variable.bound for variable in variables]
        finally:
            for variable in variables:
                variable.bound = None

    return pure
