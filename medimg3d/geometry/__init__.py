"""Where voxels lie, and how one grid is sampled on another."""
