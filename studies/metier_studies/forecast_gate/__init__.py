"""Study `forecast-gate`: size, power and recovery."""
