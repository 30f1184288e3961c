"""Figures, side by side with others. `make bench` runs all; each is a module of its own."""
