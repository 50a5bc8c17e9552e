"""A crowd of clients, polite and not, on a server process for as long as one likes: `make soak`."""
