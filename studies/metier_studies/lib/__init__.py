"""What studies are made of: resumable cells, means and shares over seeds, claims with the one verdict."""
