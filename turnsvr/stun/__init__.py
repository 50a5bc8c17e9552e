"""The wire: STUN messages, attributes, addresses, integrity and framing. Bytes in, values out."""
