"""Many runs: the cells of a grid, in processes or in an array job."""
