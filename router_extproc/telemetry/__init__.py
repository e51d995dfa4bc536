"""What happened, for people and machines: `recorder` the seam, `metrics` names and buckets, `logs` the log format."""
