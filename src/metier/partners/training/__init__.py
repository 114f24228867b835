"""Training of populations: networks, rollouts, PPO, and the losses that make partners differ."""
