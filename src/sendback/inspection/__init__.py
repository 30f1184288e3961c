"""The inspection and control API under `/_sendback/`, and LocalStack's `/_aws/ses`."""
