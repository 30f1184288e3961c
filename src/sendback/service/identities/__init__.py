"""Identities and the verification of their owners."""
