"""Classification on one thread: `base` the seam, `queue` the policy, `engine` the thread, `encoder` torch."""
