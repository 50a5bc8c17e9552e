"""`python -m bench --lab`: the server between a client's network and a peer's; the kernel makes and counts packets."""
