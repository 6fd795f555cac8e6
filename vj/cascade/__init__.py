"""What a cascade is: its features, its stages, and its files by path or name."""
