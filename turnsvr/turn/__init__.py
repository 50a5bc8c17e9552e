"""The rules of STUN and TURN as a state machine: no socket, no event loop, no clock and no randomness of its own."""
