"""Accounts, users and keys; who the caller is and what policies allow."""
