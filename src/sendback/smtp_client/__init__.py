"""The SMTP client that deliveries and mailbox actions share.

`replies`, `conversation` and `content` are pure; `connection` is the only module that does I/O.
"""
