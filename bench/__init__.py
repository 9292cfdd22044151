"""Side by side with what a user would pick instead: results as tables, one command each. And the demo."""
