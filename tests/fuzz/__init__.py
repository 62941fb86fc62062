"""Fuzzing of the guard: `make fuzz`, or `python -m tests.fuzz --help`. Not part of the tests."""
