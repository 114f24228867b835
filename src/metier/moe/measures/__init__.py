"""How routers use their experts, in NumPy alone: figures, information about labels, logs and pictures."""
