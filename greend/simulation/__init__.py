"""A training job on a device as arithmetic, so that a policy can be rehearsed before it touches a job."""
