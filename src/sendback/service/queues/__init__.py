"""Workers of durable queues, and when a failed piece of work is tried again."""
