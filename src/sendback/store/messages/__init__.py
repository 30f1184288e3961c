"""Received messages."""
