"""Simulated hardware: what the tests measure instead of a machine with meters."""
