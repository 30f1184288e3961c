"""Receiving as SES does it: what rules say, which apply, what is to be done. Pure.

`model` has the words, `shapes` reads and writes them as the API does, `constraints` says what a
rule may hold, `matching` finds the rules of a recipient, `plan` is the engine, `filters` judges
IP addresses, `verdicts`, `published` and `events` make what actions hand on.
"""
