"""The study of upcycling: a trained encoder's feed-forward blocks made into experts."""
