"""Outgoing mail: the queue, its destinations, the operator's control, and MTA-STS policies."""
