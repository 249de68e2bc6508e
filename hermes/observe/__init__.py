"""What an operator sees of a running gateway: logs, statistics, the tree of lifetimes, signs of life."""
