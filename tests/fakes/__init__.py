"""Deliberately wrong engines, each wrong in the way that a real bug is."""
