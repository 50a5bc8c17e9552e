"""What an operator sees of a client as it happens: its messages and the answers, without any secret, bounded.

Without a trace nothing of it runs or costs time.
"""
