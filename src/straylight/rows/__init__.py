"""Rows of a data set, at rest and on their way: in memory or on disk, in whole batches, in an order by seed."""
