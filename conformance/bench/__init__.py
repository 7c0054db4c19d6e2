"""The benchmark of the backward pass: what is timed, on which engines, and how.

workload.py, workloads/   what is timed: a Program for each size, its values and its cost
compiled.py               a Program as a plain Python function
engine.py, engines/       what runs it: one small file an engine
"""
