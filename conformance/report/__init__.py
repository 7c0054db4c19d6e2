"""Reports: readers of the journal, and of nothing else. `summarise` is what they all start from."""

from conformance.report.summary import Summary, summarise

__all__ = ["Summary", "summarise"]
