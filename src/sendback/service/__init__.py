"""The use cases, one folder each; `store` has folders of the same names.

The order of imports is receiving, rules, bouncing, identities, access and outbox, queues: each
folder may import those that follow. No protocol is here: no SMTP reply, no XML, no HTTP status.
Errors of the SES API are raised as `SesError`, which has a code and a text.
"""
