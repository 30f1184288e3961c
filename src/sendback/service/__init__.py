"""The use cases: receiving, bouncing, identities, keys, sending statistics, housekeeping.

Knows no protocol: no SMTP reply, no XML, no HTTP status stands here. Errors that the SES API
gives are raised as `SesError`, which is a code and a text.
"""
