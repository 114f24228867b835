"""The study of balancers on a small sparse language model of real text."""
