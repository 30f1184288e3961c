"""Policies: the grammar of IAM's policy language and its evaluation. Pure.

`policy` reads a document, `conditions` knows the operators, `evaluate` decides.
"""
