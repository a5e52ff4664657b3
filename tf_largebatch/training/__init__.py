"""Running a training job: the loop, checkpoints, the folder of a run, what a recipe says."""
