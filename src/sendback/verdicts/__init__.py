"""Finding out what a message is: SPF, DKIM, DMARC, spam, viruses. `judge` puts it together."""
