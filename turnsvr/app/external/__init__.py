"""The server's own public address, where the settings have it found: by the cloud it runs in, by STUN, or by name."""
