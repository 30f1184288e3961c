"""What the tables stand on: connections, transactions, leases, large contents, migrations."""
