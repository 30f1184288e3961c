"""Sockets, DNS and HTTP: what every edge and service shares."""
