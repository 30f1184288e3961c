"""Fault rules and their counters."""
