"""Benchmarks: each prints what it measured, on which data and machine."""
