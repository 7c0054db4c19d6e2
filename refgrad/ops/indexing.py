"""Ops that pick and place by index."""

from __future__ import annotations
