"""MONAI Bundles as folders: reading, copying, the code they carry."""
