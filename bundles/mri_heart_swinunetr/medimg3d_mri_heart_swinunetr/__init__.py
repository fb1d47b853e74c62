"""Code of medimg3d that this bundle carries: it runs without medimg3d installed."""
