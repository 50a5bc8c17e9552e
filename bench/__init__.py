"""Side-by-side runs of turnsvr against another TURN server: the same core, the same load, in turn."""
