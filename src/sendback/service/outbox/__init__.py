"""Mail that leaves: statistics, and what operators change."""
