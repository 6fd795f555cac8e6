"""The commands: the only place that prints, shows progress and exits."""
