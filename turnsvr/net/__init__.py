"""Sockets and asyncio: the engine that runs the rules, TCP and TLS listeners, what this host is reached by."""
