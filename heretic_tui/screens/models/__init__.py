"""The models screen: models and runs to choose from."""
