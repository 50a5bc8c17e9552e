"""The data plane: moves the packets that a rule already covers. api.py states what every pump promises."""
