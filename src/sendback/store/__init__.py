"""Everything durable: one folder a subject, named as in `service` where both have it.

`engine` has what all folders use: tables, migrations, transactions, leases, large bodies. The
layers above run units of work (see `engine/transactions.py`), which take and return frozen
dataclasses.
"""
