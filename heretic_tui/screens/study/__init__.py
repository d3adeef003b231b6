"""The study screen: trials as they come, the front, the workers, and the responses of a trial."""
