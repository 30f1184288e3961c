"""Outbound mail: control by operators, and statistics."""
