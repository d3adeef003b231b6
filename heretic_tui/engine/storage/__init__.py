"""Where a study's trials are kept: Optuna's storages, who runs which trial, and what is read from them."""
