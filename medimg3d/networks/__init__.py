"""What networks need beyond MONAI's own."""
