"""The settings of a server: their values, how they are read, and where each comes from."""
