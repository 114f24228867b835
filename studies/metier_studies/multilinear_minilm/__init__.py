"""MiniLM with multilinear experts in place of feed-forward blocks, warm-started and fine-tuned."""
