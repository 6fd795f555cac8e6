"""Reports as pages: one self-contained HTML file each, which loads nothing from anywhere."""
