"""What actions reach: objects, topics, functions, mailboxes; the ports of `service`, built."""
