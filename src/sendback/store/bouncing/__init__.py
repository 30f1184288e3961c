"""SendBounce: the calls that are remembered, and the transaction that queues a bounce."""
