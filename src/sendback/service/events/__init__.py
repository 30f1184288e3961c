"""What happens in the server, as events that others can follow."""
