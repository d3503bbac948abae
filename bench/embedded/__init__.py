"""The shipped model: its weights, the stories it knows, and the script that trained it."""
