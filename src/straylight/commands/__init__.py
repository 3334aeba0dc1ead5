"""The commands of `straylight`, a file each."""
