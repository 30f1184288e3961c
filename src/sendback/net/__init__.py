"""Listening sockets, DNS lookups and HTTP requests, for the servers and services."""
