"""Fault injection: the rules, and the decision on each event."""
