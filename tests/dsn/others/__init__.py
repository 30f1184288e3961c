"""Bounces that other mail servers wrote, kept as test data for reading and judging.

`python -m tests.dsn.others` makes those of Postfix and Exim anew. OpenSMTPD's paths are compiled
in, so its bounces were made by hand, with its package unpacked and the same mails.
"""
