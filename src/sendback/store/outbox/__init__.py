"""Mail that leaves: the queue, its destinations, and what operators change in it."""
