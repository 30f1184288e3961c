"""Workers of durable queues, and the waits between retries."""
