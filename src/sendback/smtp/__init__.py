"""Receiving by SMTP: a pure protocol machine (`machine`) and the server around it (`server`).

Pure: `machine` runs the session; `session` is its state, `events` what it reports; `commands` is
the command table, `lines` and `arguments` parse; `input_buffer` and `content` split the octets;
`replies` has the replies.

I/O: `server` has what all connections share, `connection` drives one machine, `channel` is its
socket and TLS (`tls`); `decisions` accepts clients and recipients, `storing` stores messages,
`disk_space` measures the disk; `timeouts` and `scheduling` bound what a client may use.
"""
