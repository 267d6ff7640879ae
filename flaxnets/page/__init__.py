"""Pages that fetch nothing: one skeleton and style for reports of parity, runs and speed."""

from flaxnets.page.chart import Series, chart
from flaxnets.page.document import definitions, document, table

__all__ = ["document", "definitions", "table", "Series", "chart"]
