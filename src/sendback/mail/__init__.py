"""Parsers and formatters for RFC 5321 and RFC 5322: addresses, envelopes, header fields, dates.

Pure: no I/O, no framework, no clock. Functions take bytes or text and return frozen values, or
raise an error that describes the fault.
"""
