"""The documentation: guides in Markdown, and what makes them and the docstrings into a site."""
