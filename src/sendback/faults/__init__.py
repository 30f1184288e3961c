"""Fault rules: which command, call, delivery or action fails on purpose, when and how. Pure."""
