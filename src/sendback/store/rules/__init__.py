"""Receipt rules, IP filters, targets, and the queue of messages that rules process."""
