"""The report as one HTML page that needs no other file, no script and no network."""

from html import escape

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .3rem 0; color: #444; }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #ccc;
  vertical-align: top; }
thead th { border-bottom: 2px solid #444; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption { font-size: .9rem; color: #444; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 1.5rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) { caption { max-width: calc(100vw - 2rem); }
  figure { overflow-x: auto; } img { max-width: none; width: 36rem; } }
@media print { body { max-width: none; font-size: 11pt; }
  figure, tr { break-inside: avoid; } .scroll { overflow: visible; } }
"""


def page(title, parts):
    """The page.

    Args:
        title: plain text.
        parts: pairs of a heading, in plain text, and a list of blocks made by this module.
    """
    body = "\n".join(
        f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(blocks) + "\n</section>"
        for heading, blocks in parts
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
</body>
</html>
"""


def paragraph(text):
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def statements(pairs):
    """A list of (what it is about, a sentence on it)."""
    items = "\n".join(
        f"<li><strong>{escape(about)}:</strong> {escape(text)}</li>" for about, text in pairs
    )
    return f"<ul>\n{items}\n</ul>"


def rules(texts):
    """A numbered list of plain texts."""
    items = "\n".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ol>\n{items}\n</ol>"


def facts(pairs):
    """A list of names and what they are; a dict becomes a list of its own."""
    items = "\n".join(
        f"<dt>{escape(name)}</dt>\n<dd>"
        + (facts(value.items()) if isinstance(value, dict) else escape(plain(value)))
        + "</dd>"
        for name, value in pairs
    )
    return f"<dl>\n{items}\n</dl>"


def table(made):
    """A Table, with a caption, and heads of columns and rows that screen readers know."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in made.head)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in made.rows
    )
    return (
        f'<div class="scroll">\n<table>\n<caption>{escape(made.caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def figure(drawn):
    """A Figure, within the page."""
    return (
        f'<figure>\n<img src="{drawn.uri}" alt="{escape(drawn.alt, quote=True)}">\n'
        f"<figcaption>{escape(drawn.caption)}</figcaption>\n</figure>"
    )


def plain(value):
    """A value of study.json as a reader wants it.

    >>> plain([16, 512]), plain(None), plain(True), plain(60.0)
    ('16, 512', 'none', 'yes', '60')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(plain, value)) if isinstance(value, list) else str(value)
