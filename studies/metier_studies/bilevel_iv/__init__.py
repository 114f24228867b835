"""Study `iv`: real instruments, beside two-stage least squares, and what weakness does."""
