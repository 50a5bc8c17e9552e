"""What an operator sees of a client as it happens: its messages and the answers, without any secret, bounded.

Nothing of it is at work, and nothing costs time, while nobody traces.
"""
