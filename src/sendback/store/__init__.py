"""Everything durable: tables, migrations, transactions, queues, content.

One module per table, and only that module writes SQL for it. What differs between databases is
in `dialects`. The floors above speak in units of work (see `transactions`) and frozen values.
"""
