"""Receiving by SMTP: a pure protocol machine (`protocol`), a transport around it (`server`)."""
