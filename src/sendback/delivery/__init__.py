"""Delivering what the outbox holds: the worker with its leases, and the ways out."""
