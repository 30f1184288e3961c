"""What all tables use: connections, transactions, leases, large bodies, sweeps, migrations."""
