"""One symmetric system over the replicas of a strategy: Cholesky in block-cyclic rows.

Each of P replicas holds block rows of the upper triangle, each from its diagonal on, with the
right-hand sides as more columns. They are dealt to and fro (0, 1, 1, 0, 0, 1, ...), so that all
have as many numbers, n^2 / (2 P) of the matrix. A step k: the owner of block row k turns it into
the panel [U | z]; all get the panel; each subtracts its product from its own later rows
(right-looking, as LAPACK's potrf). Then the blocks of x from the last to the first, each by its
panel's owner. The thesis's grid of sqrt(P) by sqrt(P) sends a panel to one row and one column of
machines; `tf.distribute` has no collectives among some of the replicas, and over all of them a grid
sends the same bytes in twice the messages.
"""

import functools

import numpy as np

from tf_largebatch.kernels._cholesky import back_substitute, factor_panel
from tf_largebatch.kernels._workers import local_replicas


class BlockRows:
    """The system's block rows on the replicas that hold them.

    Args:
        n_samples: Rows of the system.
        n_targets: Right-hand sides.
        strategy: A `tf.distribute.Strategy`.
        block_size: Rows of a block at most. The system is padded with rows of the identity so that
            each replica has as many blocks.
        dtype: float64 or float32.
    """

    def __init__(self, n_samples, n_targets, strategy, *, block_size, dtype=np.float64):
        self.n_samples, self.n_targets, self.strategy = n_samples, n_targets, strategy
        self.dtype, self.n_replicas = np.dtype(dtype), strategy.num_replicas_in_sync
        # An even number each, so that long and short rows pair; and less padding with fewer rows in
        # all blocks than with whole blocks.
        self.blocks_per_replica = 2 * -(-n_samples // (2 * self.n_replicas * block_size))
        self.n_blocks = self.n_replicas * self.blocks_per_replica
        self.block_size = -(-n_samples // self.n_blocks)
        self.n_padded = self.n_blocks * self.block_size
        self.width = self.n_padded + n_targets

    @property
    def replica_bytes(self):
        """Bytes of the blocks that each replica keeps.

        They are twice in memory while a step writes the next ones, beside one or two panels of at
        most `block_size * width` numbers.
        """
        widths = [self.width - i * self.block_size for i in self.blocks_of(0)]
        return sum(widths) * self.block_size * self.dtype.itemsize

    def worker_bytes(self):
        """Bytes that this process needs at most, for all its replicas."""
        panels = 3 * self.block_size * self.width * self.dtype.itemsize
        return len(local_replicas(self.strategy)) * (2 * self.replica_bytes + panels)

    def panel_bytes(self, k):
        """Bytes of the panel of block row k."""
        return (self.width - k * self.block_size) * self.block_size * self.dtype.itemsize

    def blocks_of(self, replica):
        """Numbers of a replica's block rows."""
        return [self.number(turn, replica) for turn in range(self.blocks_per_replica)]

    def number(self, turn, replica):
        """The block row that a replica is dealt at a turn."""
        P = self.n_replicas
        return turn * P + (replica if turn % 2 == 0 else P - 1 - replica)

    def owner(self, k):
        """The replica that holds block row k."""
        return self.number(k // self.n_replicas, k % self.n_replicas) % self.n_replicas

    def fill(self, upper, y):
        """Makes the blocks, each where it stays.

        Args:
            upper: A function (rows, columns) of two slices that returns that part of the matrix,
                (n_rows, n_columns), for rows of a block and the columns from its diagonal on.
            y: (n_samples, n_targets).
        """
        import tensorflow as tf

        def block(i):
            b, start = self.block_size, i * self.block_size
            stop = min(start + b, self.n_samples)
            array = np.zeros((b, self.width - start), self.dtype)
            if start < stop:
                columns = slice(start, self.n_samples)
                array[: stop - start, : self.n_samples - start] = upper(slice(start, stop), columns)
                array[: stop - start, self.n_padded - start :] = y[start:stop]
            largest[self.owner(i)] = max(largest[self.owner(i)], array.diagonal().max())
            padding = np.arange(max(stop - start, 0), b)
            array[padding, padding] = 1.0
            return array

        largest = np.zeros(self.n_replicas, self.dtype)

        def on_each(array_of):
            """A value per replica, each on the replica's device."""

            def value(context):
                replica = int(context.replica_id_in_sync_group)
                with tf.device(device_of[replica]):
                    return tf.identity(tf.constant(array_of(replica)))

            return self.strategy.experimental_distribute_values_from_function(value)

        devices = self.strategy.extended.worker_devices
        device_of = dict(zip(local_replicas(self.strategy), devices, strict=True))
        self._blocks = [
            on_each(lambda replica, turn=turn: block(self.number(turn, replica)))
            for turn in range(self.blocks_per_replica)
        ]
        self._numbers = on_each(self.blocks_of)
        # A squared pivot counts as zero beside the diagonal that the replica's own rows had.
        floors = largest * self.dtype.type(self.n_samples * np.finfo(self.dtype).eps)
        self._floor = on_each(lambda replica: floors[replica])

    def solve(self, after_step=lambda n_done, n_steps: None):
        """Factors the blocks in place and solves.

        Args:
            after_step: Called with the number of panels and blocks of x found, and of all.

        Returns:
            (n_samples, n_targets) ndarray, on all workers; or None, also on all, if the matrix
            isn't positive definite in working precision.
        """
        import tensorflow as tf

        factor, substitute = programs(
            self.strategy, self.n_blocks, self.block_size, self.n_targets, self.dtype
        )
        for k in range(self.n_blocks):
            self._blocks, found = factor(tf.constant(k), self._numbers, self._floor, self._blocks)
            if not bool(self.strategy.experimental_local_results(found)[0]):
                return None
            after_step(k + 1, 2 * self.n_blocks)
        x = tf.zeros((self.n_padded, self.n_targets), self.dtype)
        for k in reversed(range(self.n_blocks)):
            everywhere = substitute(tf.constant(k), self._numbers, self._blocks, x)
            # All replicas have the same; from here on it is one tensor, no value per replica.
            x = self.strategy.experimental_local_results(everywhere)[0]
            after_step(2 * self.n_blocks - k, 2 * self.n_blocks)
        return x.numpy()[: self.n_samples]


@functools.lru_cache(maxsize=8)
def programs(strategy, n_blocks, block_size, n_targets, dtype):
    """The two steps as functions of k, traced once for all systems of these sizes.

    Args:
        strategy: The `tf.distribute.Strategy`.
        n_blocks, block_size, n_targets, dtype: As `BlockRows` has them.

    Returns:
        `factor(k, numbers, floor, blocks)`, which returns the blocks after step k and whether its
        panel exists; `substitute(k, numbers, blocks, x)`, which returns x with block k in it.
    """
    import tensorflow as tf

    b, P, width = block_size, strategy.num_replicas_in_sync, n_blocks * block_size + n_targets

    def all_sum(tensor):
        return tf.distribute.get_replica_context().all_reduce("SUM", tensor)

    def of_owner(k, numbers, blocks, found, width):
        """`found(block)` of block row k on the replica that has it, zeros on the others."""
        turn = k // P

        def block():
            return tf.switch_case(turn, [lambda one=one: one for one in blocks])

        return tf.cond(
            tf.gather(numbers, turn) == k,
            lambda: found(block()),
            lambda: tf.zeros((b, width), dtype),
        )

    def factor(k, numbers, floor, blocks):
        def panel_of(rows):
            rows = tf.ensure_shape(rows, (b, None))
            panel, is_definite = factor_panel(rows[tf.newaxis], floor[tf.newaxis])
            return tf.where(is_definite, panel[0], tf.zeros_like(panel[0]))

        panel = all_sum(of_owner(k, numbers, blocks, panel_of, width - k * b))
        panel = tf.ensure_shape(panel, (b, None))

        def earlier(block, i):
            return tf.identity(block)

        def now(block, i):
            return tf.ensure_shape(panel, block.shape)

        def later(block, i):
            start = (i - k) * b
            change = tf.matmul(panel[:, start : start + b], panel[:, start:], transpose_a=True)
            return tf.ensure_shape(block - change, block.shape)

        def next_of(block, i):
            cases = [lambda case=case: case(block, i) for case in (earlier, now, later)]
            return tf.switch_case(tf.sign(i - k) + 1, cases)

        blocks = [next_of(block, numbers[turn]) for turn, block in enumerate(blocks)]
        return blocks, panel[0, 0] > 0

    def substitute(k, numbers, blocks, x):
        before, below = x[: k * b], x[(k + 1) * b :]

        def found(panel):
            panel = tf.ensure_shape(panel, (b, None))
            return back_substitute(panel[tf.newaxis], below[tf.newaxis])[0]

        block = all_sum(of_owner(k, numbers, blocks, found, n_targets))
        return tf.ensure_shape(tf.concat([before, block, below], axis=0), x.shape)

    return [
        tf.function(lambda *args, step=step: strategy.run(step, args=args), autograph=False)
        for step in (factor, substitute)
    ]
