"""What the clusters are, in words."""
