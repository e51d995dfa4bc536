"""Benchmarks. Each prints a table and writes JSON; README.md says how to run and read them."""
