"""The grammar of IAM's policy language and its evaluation. Pure.

`policy` parses a document, `conditions` has the operators, `evaluate` decides a request.
"""
