"""SES API: SendBounce."""
