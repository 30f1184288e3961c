"""SendBounce: what it reads, the transaction that queues a bounce, and the record of calls."""
