"""Files of a run on any file system that TensorFlow knows, written whole or not at all.

A path with a scheme, such as gs://bucket/run, is remote: it is read and written by `tf.io.gfile`.
One file takes the place of another by a rename, which on an object store is a copy of one object,
whole or not at all, and a deletion. What is large is not copied: it is written in its place and
counts only once a marker beside it, written last, tells its size and sum. Failures are OSErrors on
all file systems.
"""

import contextlib
import errno
import io
import json
import os
import re
import zlib

import tensorflow as tf

_UNFINISHED = "unfinished-"
_MARKER = ".complete"


def is_remote(path):
    """Whether the path has a scheme.

    >>> is_remote("gs://bucket/run"), is_remote("runs/first")
    (True, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(path)) is not None


@contextlib.contextmanager
def os_errors():
    """Raises an OSError where TensorFlow raises an error of its own."""
    try:
        yield
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, error.message or "not found") from None
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message or type(error).__name__) from None


@os_errors()
def kind(path):
    """What is at the path: "folder", "file", or None."""
    try:
        # Not `isdir` and `exists`: a server that doesn't answer would be "nothing".
        return "folder" if tf.io.gfile.stat(str(path)).is_directory else "file"
    except tf.errors.NotFoundError:
        return None


@os_errors()
def names(folder):
    """What the folder holds, sorted; nothing if there is no such folder."""
    if kind(folder) != "folder":
        return []
    # Object stores end the name of a folder with a slash.
    found = (name.rstrip("/") for name in tf.io.gfile.listdir(str(folder)))
    return sorted(name for name in found if name)


@os_errors()
def make_folder(folder):
    """Makes the folder and those above it, unless they are there."""
    if is_remote(folder):
        tf.io.gfile.makedirs(str(folder))
    else:  # gfile would not ask the umask
        os.makedirs(folder, exist_ok=True)


@os_errors()
def read(path):
    """The bytes of a file."""
    with tf.io.gfile.GFile(str(path), "rb") as file:
        return file.read()


@os_errors()
def remove(path):
    """Deletes a file, if it is there."""
    with contextlib.suppress(tf.errors.NotFoundError):
        tf.io.gfile.remove(str(path))


@contextlib.contextmanager
def replacing_path(path):
    """A temporary path beside `path`, with the same suffix; what is written there takes its place.

    Only if all goes well; else it is removed.
    """
    path = str(path)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f"{_UNFINISHED}{os.getpid()}-{name}")
    try:
        yield temporary
        with os_errors():
            if not is_remote(path):
                with open(temporary, "r+b") as file:
                    os.fsync(file.fileno())
            tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what counts
            remove(temporary)
        raise


@contextlib.contextmanager
def replacing(path):
    """Opens a temporary file beside `path`, which takes its place only if all goes well."""
    with replacing_path(path) as temporary, os_errors(), _written(temporary) as file:
        yield file


@contextlib.contextmanager
def committing(path):
    """Opens `path` for writing; it counts as complete only if all goes well.

    A complete file of that name stays until the new one takes its place; a remote one is removed
    at the start, its marker first.
    """
    if not is_remote(path):
        with replacing(path) as file:
            yield file
        return
    remove_committed(path)
    try:
        with os_errors():
            with _written(path) as file:
                yield file
            with _written(f"{path}{_MARKER}") as marker:
                marker.write(json.dumps(file.sums).encode())
    except BaseException:
        with contextlib.suppress(OSError):
            remove_committed(path)
        raise


def committed(path, *, marked=True):
    """Opens for reading what `committing` wrote; a remote file is held in memory.

    Args:
        path: the file.
        marked: False: a remote file is taken without a marker.

    Raises:
        ValueError: if it isn't what its marker says.
        OSError: if it can't be read.
    """
    if not is_remote(path):
        return open(path, "rb")
    # Whole: zipfile jumps to and fro, and would fetch each piece from the store anew. The arrays
    # come on top, so that 1 GB of state takes 2 GB for the moment.
    data = read(path)
    if marked and _sums(data) != (marker := json.loads(read(f"{path}{_MARKER}"))):
        raise ValueError(f"it has {_sums(data)}, its marker says {marker}")
    return io.BytesIO(data)


def remove_committed(path):
    """Deletes what `committing` wrote, so that at no moment half of it counts."""
    if is_remote(path):
        remove(f"{path}{_MARKER}")
    remove(path)


def is_complete(path, beside):
    """Whether a file that `committing` wrote counts, given the names in its folder.

    >>> is_complete("gs://bucket/a.npz", ["a.npz"]), is_complete("runs/a.npz", ["a.npz"])
    (False, True)
    """
    return not is_remote(path) or os.path.basename(path) + _MARKER in beside


def remove_unfinished(folder):
    """Deletes the temporary files that killed processes left in `folder` and below."""
    for place, _, found in tf.io.gfile.walk(str(folder)):
        for name in found:
            if name.startswith(_UNFINISHED):
                remove(os.path.join(place, name))


def _written(path):
    return _RemoteFile(path) if is_remote(path) else open(path, "wb")


def _sums(data, before=None):
    before = before or {"bytes": 0, "crc32": 0}
    return {"bytes": before["bytes"] + len(data), "crc32": zlib.crc32(data, before["crc32"])}


class _RemoteFile:
    """A file to write from its first byte to its last, with the sums of what was written.

    Without `seek`, NumPy and zipfile write a stream: nothing is held in memory here.
    """

    read = None  # NumPy asks whether it is there before it takes an object for a file

    def __init__(self, path):
        self.file, self.sums = tf.io.gfile.GFile(str(path), "wb"), _sums(b"")

    def write(self, data):
        self.file.write(bytes(data))
        self.sums = _sums(data, self.sums)
        return len(data)

    def flush(self):
        pass  # an object store takes the object when it is closed

    def __enter__(self):
        self.write(b"")  # an empty file is a file, too
        return self

    def __exit__(self, *_):
        self.file.close()
