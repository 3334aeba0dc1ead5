"""Hydra looks here for `hydra/launcher=local`."""
