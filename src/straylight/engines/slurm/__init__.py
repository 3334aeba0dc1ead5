"""Jobs on a cluster that Slurm keeps."""
