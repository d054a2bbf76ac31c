"""The benchmarks: each figure is a ratio to a rival measured in the same run, interleaved.

`python -m tests.bench` (or `make bench`) runs them against its own PostgreSQL, Valkey and web
server; see RESULTS.md for the last numbers and what each of them counts.
"""
