"""Benchmarks. Each is a program with a target `make bench-...`, or `make record` and `make reproduce`."""
