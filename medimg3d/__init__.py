"""medimg3d: real medical images to MONAI Bundles, and bundles to results.

Importing this package loads no torch and no MONAI; each subpackage loads what it needs.
Software for research; not for diagnosis.
"""

__version__ = "0.1.0"
