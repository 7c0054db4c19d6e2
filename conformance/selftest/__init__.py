"""The harness measured: one module a measurement, each with its click `command`."""
