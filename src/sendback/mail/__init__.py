"""The words of RFC 5321 and RFC 5322: addresses, envelopes, header fields, dates.

Pure: no I/O, no framework, no clock. Everything here is given bytes or text and answers with
frozen values or raises an error that says what is wrong with them.
"""
