"""Many runs: the cells of a grid, done in processes or in a Slurm array job."""
