"""Hydra looks here for `hydra/launcher=local` and `hydra/sweeper=grid`."""
