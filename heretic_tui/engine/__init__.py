"""The engine: everything about models and studies, with no screen."""

import os

# Threads that wait by spinning slow each other down many times over as soon as another program uses the processor;
# alone, waiting passively costs nothing that could be measured. OpenMP reads this when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
