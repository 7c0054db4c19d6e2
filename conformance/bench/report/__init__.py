"""Reports on a session: pure readers of its journal."""
