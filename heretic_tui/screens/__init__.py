"""The screens, one file each, every one a mode of the app."""
