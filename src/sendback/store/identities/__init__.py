"""Identities: their settings, policies, DKIM keys, DNS checks and verification mails."""
