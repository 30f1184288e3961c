"""The checks of `sendback doctor`: DNS, TLS and outbound connections of this server."""
