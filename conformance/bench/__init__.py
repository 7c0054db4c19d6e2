"""The benchmark of the backward pass: what is timed, on which engines, and how.

workload.py, workloads/   what is timed: a Program for each size, its values and its cost
compiled.py               a Program as a plain Python function
engine.py, engines/       what runs it: one small file an engine
timing.py, cuda_timer.py  how a call is timed; statistics.py what is said of readings
case.py, session.py       one workload at one size, and all of them in one process, within a budget
roofs.py, memory.py       what the machine can do at most; what a step keeps
verdict.py, compare.py    whether a session can be believed, and what changed since another
journal.py, report/       what was timed, line by line, and the page of it
"""
