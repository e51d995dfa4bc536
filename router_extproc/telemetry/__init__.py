"""What happened, for machines: `recorder` the seam, `metrics` names and buckets, `instruments` their arithmetic."""
