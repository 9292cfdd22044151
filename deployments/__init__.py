"""What a fleet runs: the warm GPU worker, the bootstrap, and how they are packed."""
