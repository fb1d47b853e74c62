"""Where a classifier looked: heat maps, and whether they can be trusted."""
