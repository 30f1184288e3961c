"""The implementations of the action ports: objects, topics, functions, mailboxes."""
