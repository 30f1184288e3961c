"""The AWS side of the wire: the Query protocol on botocore's model, SigV4, errors, ARNs. Pure."""
