"""The stories: each flow reads top to bottom."""
