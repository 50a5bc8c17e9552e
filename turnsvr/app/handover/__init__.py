"""One process goes on where another one serves, and no call is lost. docs/decisions/hand-over.md has the protocol."""
