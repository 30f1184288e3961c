"""Accounts, users, access keys, and values of the whole installation."""
