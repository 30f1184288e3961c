"""The SES Query API over HTTP: verify, decode, dispatch, encode."""
