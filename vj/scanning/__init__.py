"""How an image is scanned with a cascade: integral images, the pyramid, the scan, and the grouping of its hits."""
