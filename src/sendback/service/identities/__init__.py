"""Identities and the proofs of who owns them."""
