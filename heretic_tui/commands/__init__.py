"""The command line's rooms: larger commands, what they print, and what they say when something goes wrong."""
