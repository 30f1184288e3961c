"""Accounts, users, access keys, and the installation they belong to."""
