"""A small S3 for the buckets of rules that are directories: functions read what rules stored."""
