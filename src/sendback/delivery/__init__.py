"""Delivery of the outbox: the worker, the transports, routing and TLS policies."""
