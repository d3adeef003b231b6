"""The engine: everything about models and studies, with no screen."""
