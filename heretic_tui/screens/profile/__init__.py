"""The profile screen: every setting, its help, and the files of profiles."""
