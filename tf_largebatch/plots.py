"""One style for all figures: colour-blind safe, labelled with units, legible at page width.

Colours are those of Okabe and Ito (2008); lines differ in marker and dash as well, so that a figure
can be read without colour. matplotlib is an optional extra and is imported when a figure is made.
"""

import base64
import contextlib
import io
import os

# Black last: it is for references, such as a target.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
PAGE_WIDTH = 7.0  # inches; the text of 9 points is legible when printed so

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "figure.dpi": 150,
    "svg.hashsalt": "tf_largebatch",  # the same figure is the same file
}


def line_style(number):
    """Colour, marker and dash of the line of this number, as arguments of `axes.plot`.

    >>> line_style(1)["marker"], line_style(9)["color"] == line_style(1)["color"]
    ('s', True)
    """
    dash = number % len(COLOURS) + number // len(COLOURS)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[dash % len(DASHES)],
    }


@contextlib.contextmanager
def figure(*, rows=1, columns=1, height=3.2, width=PAGE_WIDTH, **subplots):
    """A figure in the project's style, closed at the end of the block.

    Args:
        rows, columns: of axes.
        height: of a row of axes, in inches.
        width: of the whole figure, in inches.
        **subplots: as matplotlib's `subplots` takes them, such as `sharex`.

    Yields:
        (figure, axes): axes is (rows, columns), a NumPy array, always of two dimensions.

    Raises:
        ImportError: if matplotlib isn't installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"Plots need matplotlib, which can't be imported ({error}). Install the extra: "
            "pip install 'tf-largebatch[plots]'."
        ) from error
    with matplotlib.rc_context(_STYLE):
        # Not pyplot, which holds every figure and may look for a screen.
        made = Figure(figsize=(width, height * rows), layout="constrained")
        FigureCanvasAgg(made)
        yield made, made.subplots(rows, columns, squeeze=False, **subplots)


def save(made, path):
    """Writes a figure as .png or .svg, whole or not at all.

    Args:
        made: the figure.
        path: where to; its suffix says the format.
    """
    path = str(path)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f"unfinished-{os.getpid()}-{name}")
    try:
        made.savefig(temporary, metadata=_undated(path))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def data_uri(made):
    """The figure as a PNG within an address, for a page that needs no other file."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", metadata=_undated(".png"))
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _undated(path):
    """No date and no version in the file, so that the same figure is the same file."""
    if path.endswith(".svg"):
        return {"Date": None}
    return {"Software": None} if path.endswith(".png") else None
