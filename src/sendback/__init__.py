"""Sendback: receives mail by SMTP and bounces it the way Amazon SES does."""

__version__ = "0.2.0"
