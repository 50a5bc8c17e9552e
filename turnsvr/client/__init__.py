"""The other side: a TURN and STUN client of our own, the probe and the discovery of NAT behaviour."""
