"""Opinions on what a derivative should be, each with a statement of how far it can be trusted."""
